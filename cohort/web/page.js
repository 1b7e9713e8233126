"use strict";
// Values reach the page by textContent only: nothing that comes from data is ever read as HTML.

const SHOWN_ROWS = 500;
const SHORT = 30; // characters that stay on one line
const at = (id) => document.getElementById(id);
let questions = [];
let last = null; // what was asked last, for the downloads

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
  if (response.ok) return response;
  let reason = `HTTP ${response.status}`;
  try {
    const told = (await response.json()).detail;
    reason = typeof told === "string" ? told : "the request is not as the API wants it";
  } catch { /* the answer is no JSON: the status has to do */ }
  throw new Error(reason);
}

function say(text, bad = false) {
  at("message").textContent = text;
  at("message").classList.toggle("bad", bad);
}

async function ask(path, body) {
  const buttons = document.querySelectorAll("button");
  buttons.forEach((b) => { b.disabled = true; });
  say("Asking …");
  const started = performance.now();
  try {
    const answer = await (await call(path, body)).json();
    last = { path, body };
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    const more = answer.truncated ? " or more" : "";
    const cut = answer.rows.length > SHOWN_ROWS ? `, the first ${SHOWN_ROWS} shown` : "";
    const notes = answer.notes.map((n) => ` Note: ${n}.`).join("");
    say(`${answer.rows.length}${more} rows${cut}, generation ${answer.generation}, ${seconds} s.${notes}`);
    at("result").replaceChildren(table(answer));
    at("downloads").hidden = false;
  } catch (error) {
    say(error.message, true);
    at("result").replaceChildren();
    at("downloads").hidden = true;
  } finally {
    buttons.forEach((b) => { b.disabled = false; });
  }
}

function table(answer) {
  const made = make("table");
  const head = make("tr");
  answer.columns.forEach((c) => head.append(make("th", c.name, { scope: "col", title: c.type })));
  const thead = make("thead");
  thead.append(head);
  const body = make("tbody");
  for (const row of answer.rows.slice(0, SHOWN_ROWS)) {
    const line = make("tr");
    answer.columns.forEach((c) => line.append(cell(row[c.name])));
    body.append(line);
  }
  made.append(thead, body);
  return made;
}

function cell(value) {
  if (value === null) return make("td", "");
  if (Array.isArray(value) && value.length < 2) return cell(value.length ? value[0] : null);
  if (typeof value === "number") return make("td", value, { class: "number" });
  const text = Array.isArray(value) ? value.join("; ") : String(value);
  if (text.length <= SHORT) return make("td", text, { class: "short" });
  const box = make("div", Array.isArray(value) ? null : text, { class: "cell" });
  if (Array.isArray(value)) {
    const list = make("ul");
    value.forEach((v) => list.append(make("li", v)));
    box.append(list);
  }
  const made = make("td");
  made.append(box);
  return made;
}

function chosen() {
  return questions.find((q) => q.name === at("question").value);
}

function showQuestion() {
  const question = chosen();
  at("description").textContent = question.description;
  at("parameters").replaceChildren(...question.parameters.flatMap((p) => {
    const label = make("label", p.name, { for: `p-${p.name}` });
    label.append(make("small", p.description));
    const numeric = p.type === "integer" || p.type === "number";
    const input = make("input", null, { id: `p-${p.name}`, name: p.name, type: numeric ? "number" : "text" });
    if (p.minimum !== null) input.min = p.minimum;
    if (p.maximum !== null) input.max = p.maximum;
    input.value = p.default;
    return [label, input];
  }));
}

function parameters() {
  return Object.fromEntries([...at("parameters").querySelectorAll("input")].map((i) => [i.name, i.value]));
}

function askChosen() {
  return ask(`api/questions/${chosen().name}`, { parameters: parameters() });
}

async function download(format) {
  const response = await call(last.path, { ...last.body, format });
  const named = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") || "");
  const link = make("a", null, { download: named ? named[1] : `answer.${format}` });
  link.href = URL.createObjectURL(await response.blob());
  link.click();
  URL.revokeObjectURL(link.href);
}

async function showTables() {
  const found = await (await call("api/tables")).json();
  at("tables").replaceChildren(...found.map((t) => {
    const one = make("details");
    one.append(make("summary", `${t.name} (${t.rows})`), make("p", t.title, { class: "quiet" }));
    const list = make("ul", null, { class: "columns" });
    t.columns.forEach((c) => {
      const line = make("li");
      const unit = c.unit ? ` [${c.unit}]` : "";
      line.append(make("code", c.name), ` ${c.type.toLowerCase()}${unit}`);
      line.title = c.shown ? `${c.description}; shown: ${c.shown}` : c.description;
      list.append(line);
    });
    one.append(list);
    return one;
  }));
}

const SVG = "http://www.w3.org/2000/svg";
function draw(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Stacked bars: rows of {x, series, y}; every x in order, also those without rows.
function bars(rows, xs, label) {
  const series = [...new Set(rows.map((r) => r.series))].sort();
  const sums = new Map(xs.map((x) => [x, 0]));
  rows.forEach((r) => sums.set(r.x, sums.get(r.x) + r.y));
  const top = Math.max(1, ...sums.values());
  const [width, height, left, bottom] = [520, 220, 34, 40];
  const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const y = (value) => height - bottom - (value / top) * (height - bottom - 12);
  for (const tick of new Set([0, Math.ceil(top / 2), top])) {
    picture.append(draw("line", { x1: left, x2: width, y1: y(tick), y2: y(tick) }));
    picture.append(draw("text", { x: left - 4, y: y(tick) + 4, "text-anchor": "end" }, tick));
  }
  const step = (width - left) / Math.max(xs.length, 1);
  const every = Math.max(1, Math.ceil(xs.length / 9));
  const stacked = new Map();
  xs.forEach((x, i) => {
    if (i % every === 0) {
      picture.append(draw("text", { x: left + step * (i + .5), y: height - bottom + 14, "text-anchor": "middle" }, x));
    }
  });
  rows.forEach((r) => {
    const from = stacked.get(r.x) || 0;
    stacked.set(r.x, from + r.y);
    const bar = draw("rect", {
      x: left + step * xs.indexOf(r.x) + step * .1, width: Math.max(step * .8, .5), y: y(from + r.y),
      height: Math.max(y(from) - y(from + r.y), 0), class: `s${series.indexOf(r.series) % 8}`,
    });
    bar.append(draw("title", {}, `${r.x}, ${r.series}: ${r.y}`));
    picture.append(bar);
  });
  series.forEach((name, i) => {
    const x = left + i * 68;
    picture.append(draw("rect", { x, y: height - 14, width: 10, height: 10, class: `s${i % 8}` }));
    picture.append(draw("text", { x: x + 14, y: height - 5 }, name));
  });
  return picture;
}

function months(lastOne, count) {
  const found = [];
  let [y, m] = lastOne.split("-").map(Number);
  for (let i = 0; i < count; i += 1) {
    found.unshift(`${y}-${String(m).padStart(2, "0")}`);
    m -= 1;
    if (m < 1) { y -= 1; m = 12; }
  }
  return found;
}

async function showPlots() {
  const modalities = (await (await call("api/charts/modalities")).json()).rows
    .map((r) => ({ x: r.month.slice(0, 7), series: r.modality, y: r.studies }));
  const ages = (await (await call("api/charts/ages")).json()).rows
    .map((r) => ({ x: `${r.age}–${r.age + 9}`, series: r.gender || "unknown", y: r.patients, from: r.age }));
  if (modalities.length) {
    const recent = months(modalities.map((r) => r.x).sort().pop(), 60);
    const shown = modalities.filter((r) => recent.includes(r.x));
    at("modalities").replaceChildren(bars(shown, recent, "Studies per modality by month, the last 60 months"));
  }
  if (ages.length) {
    const top = Math.min(Math.max(...ages.map((r) => r.from)), 120);
    const decades = Array.from({ length: top / 10 + 1 }, (_, i) => `${i * 10}–${i * 10 + 9}`);
    const shown = ages.filter((r) => r.from >= 0 && r.from <= top);
    at("ages").replaceChildren(bars(shown, decades, "Imaged patients by age"));
  }
}

async function start() {
  const state = await (await call("api/generation")).json();
  at("generation").textContent = state.generation
    ? `Generation ${state.generation}, ${state.created.slice(0, 19).replace("T", " ")} UTC.`
    : "There is no data yet.";
  questions = await (await call("api/questions")).json();
  at("question").replaceChildren(...questions.map((q) => make("option", q.title, { value: q.name })));
  if (questions.some((q) => q.name === "osteosarcoma-ct")) at("question").value = "osteosarcoma-ct";
  showQuestion();
  at("question").addEventListener("change", showQuestion);
  at("ask").addEventListener("click", askChosen);
  at("run").addEventListener("click", () => ask("api/sql", { sql: at("sql").value }));
  document.querySelectorAll("[data-format]").forEach((b) => {
    b.addEventListener("click", () => download(b.dataset.format).catch((error) => say(error.message, true)));
  });
  at("parameters").addEventListener("submit", (event) => { event.preventDefault(); at("ask").click(); });
  await showTables();
  if (state.generation) await Promise.all([showPlots(), askChosen()]);
}

start().catch((error) => say(error.message, true));
