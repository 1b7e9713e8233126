"use strict";
// Values reach the page by textContent only: file names and messages are never read as HTML.

const EVERY_MS = 5000;
const SHOWN = 200;
const at = (id) => document.getElementById(id);
let parked = []; // what the table of parked work shows
let busy = false; // a replay goes on: its buttons stay as they are

function make(name, text, attributes = {}) {
  const element = document.createElement(name);
  if (text !== undefined && text !== null) element.textContent = String(text);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  if (response.ok) return response.json();
  let reason = `HTTP ${response.status}`;
  try {
    const told = (await response.json()).detail;
    if (typeof told === "string") reason = told;
  } catch { /* the answer is no JSON: the status has to do */ }
  throw new Error(reason);
}

function duration(seconds) {
  if (seconds < 1) return "0 s";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.round(seconds)} s`;
}

// columns: [title, row → text or element, class]
function table(columns, rows, empty) {
  if (!rows.length) return make("p", empty, { class: "quiet" });
  const made = make("table");
  const head = make("tr");
  columns.forEach(([title, , kind]) => head.append(make("th", title, { scope: "col", class: kind || "" })));
  const thead = make("thead");
  thead.append(head);
  const body = make("tbody");
  for (const row of rows) {
    const line = make("tr");
    for (const [, value, kind] of columns) {
      const cell = make("td", null, kind ? { class: kind } : {});
      const shown = value(row);
      cell.append(shown instanceof Node ? shown : document.createTextNode(String(shown)));
      line.append(cell);
    }
    body.append(line);
  }
  made.append(thead, body);
  return made;
}

const mark = (well, good, bad) => make("span", well ? good : bad, { class: well ? "good" : "bad" });

function showSources(sources) {
  at("sources").replaceChildren(table([
    ["source", (s) => s.name, "name"],
    ["kind", (s) => s.kind, "name"],
    ["lag", (s) => duration(s.lag_s), "number"],
    ["parked files", (s) => s.parked, "number"],
    ["state", (s) => mark(!s.error, "well", s.error)],
  ], sources, "There are no sources."));
}

function showSinks(sinks) {
  at("sinks").replaceChildren(table([
    ["sink", (s) => s.name, "name"],
    ["lag", (s) => duration(s.lag_s), "number"],
    ["waiting", (s) => s.waiting, "number"],
    ["parked", (s) => s.parked, "number"],
    ["studies", (s) => (s.studies === null ? "" : s.studies), "number"],
    ["state", (s) => mark(!s.error, "well", s.error)],
  ], sinks, "There are no sinks."));
}

function showQueues(queues) {
  at("queues").replaceChildren(table([
    ["queue", (q) => q.queue, "name"],
    ["waiting", (q) => q.waiting, "number"],
    ["failing", (q) => q.failing, "number"],
    ["parked", (q) => q.parked, "number"],
    ["oldest", (q) => duration(q.oldest_s), "number"],
  ], queues, "Nothing waits."));
  const names = queues.filter((q) => q.parked).map((q) => q.queue);
  const before = at("queue").value;
  at("queue").replaceChildren(make("option", "all", { value: "" }),
    ...names.map((name) => make("option", name, { value: name })));
  at("queue").value = names.includes(before) ? before : "";
}

function evidence(item) {
  return Object.entries(item.evidence).map(([key, value]) => `${key} ${value}`).join(", ");
}

function showParked() {
  const button = (item) => {
    const made = make("button", "Replay", { type: "button" });
    made.disabled = busy;
    made.addEventListener("click", () => replay([item]));
    return made;
  };
  const now = Date.now() / 1000;
  at("replay-all").disabled = busy || !parked.length;
  at("parked").replaceChildren(table([
    ["queue", (i) => i.queue, "name"],
    ["key", (i) => i.key],
    ["why", (i) => i.error],
    ["evidence", evidence],
    ["since", (i) => duration(now - i.first_marked_at), "number"],
    ["", button],
  ], parked, "Nothing is parked."));
}

async function loadParked() {
  const wanted = new URLSearchParams({ limit: SHOWN });
  if (at("queue").value) wanted.set("queue", at("queue").value);
  parked = await call(`parked?${wanted}`);
  showParked();
}

async function replay(items) {
  busy = true;
  showParked();
  let done = 0;
  const refused = [];
  for (const { queue, key } of items) {
    try {
      await call("parked/replay", { queue, key });
      done += 1;
    } catch (error) { refused.push(error.message); }
  }
  busy = false;
  at("replayed").textContent = `${done} will be tried again.${refused.length ? ` Not so: ${refused[0]}` : ""}`;
  await refresh();
}

const SVG = "http://www.w3.org/2000/svg";
function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const two = (number) => String(number).padStart(2, "0");
function moment(seconds, long) {
  const time = new Date(seconds * 1000);
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}`;
  return long ? `${two(time.getDate())}.${two(time.getMonth() + 1)}. ${clock}` : clock;
}

function showThroughput({ interval_s: interval, intervals }) {
  const [width, height, left, bottom] = [900, 200, 44, 22];
  const top = Math.max(1, ...intervals.map((i) => i.studies));
  const total = intervals.reduce((sum, i) => sum + i.studies, 0);
  const label = `${total} studies, in intervals of ${duration(interval)}`;
  const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const y = (value) => height - bottom - (value / top) * (height - bottom - 10);
  for (const tick of new Set([0, Math.ceil(top / 2), top])) {
    picture.append(draw("line", { x1: left, x2: width, y1: y(tick), y2: y(tick) }));
    picture.append(draw("text", { x: left - 5, y: y(tick) + 4, "text-anchor": "end" }, tick));
  }
  const step = (width - left) / Math.max(intervals.length, 1);
  const every = Math.ceil(intervals.length / 8);
  intervals.forEach(({ start, studies }, i) => {
    const when = moment(start, interval > 3600);
    const middle = left + step * (i + .5);
    if (i % every === 0 && middle < width - 40) {
      picture.append(draw("text", { x: middle, y: height - 6, "text-anchor": "middle" }, when));
    }
    const bar = draw("rect", { x: left + step * (i + .1), width: step * .8, y: y(studies), height: y(0) - y(studies) });
    bar.append(draw("title", {}, `${when}: ${studies}`));
    picture.append(bar);
  });
  at("throughput").replaceChildren(make("p", `${label}.`, { class: "quiet" }), picture);
}

async function refresh() {
  try {
    const [seen, throughput] = await Promise.all([
      call("overview"), call(`throughput?hours=${at("hours").value}`),
    ]);
    showSources(seen.sources);
    showSinks(seen.sinks);
    showQueues(seen.queues);
    showThroughput(throughput);
    await loadParked();
    at("message").textContent = `As of ${new Date().toLocaleTimeString()}.`;
    at("message").classList.remove("bad");
  } catch (error) {
    at("message").textContent = `The bridge cannot be asked: ${error.message}. What is shown may be old.`;
    at("message").classList.add("bad");
  }
}

async function follow() {
  if (!document.hidden && !busy) await refresh();
  setTimeout(follow, EVERY_MS);
}

at("hours").addEventListener("change", refresh);
at("queue").addEventListener("change", refresh);
at("replay-all").addEventListener("click", () => replay(parked));
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
follow();
