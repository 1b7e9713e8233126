"""What tests do with any FHIR server."""

from __future__ import annotations

from typing import Any

import httpx


class FhirClient:
    """A FHIR server as tests see it; `url` is its FHIR base. Everything it refuses is an httpx.HTTPStatusError."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(timeout=60, trust_env=False)

    def put(self, resource: dict[str, Any]) -> dict[str, Any]:
        """The resource as the server has it then; under an id of the server's where it takes none of ours."""
        path = f"{self.url}/{resource['resourceType']}"
        answer = self._client.put(f"{path}/{resource['id']}", json=resource)
        if answer.is_client_error:
            answer = self._client.post(path, json=resource)
        stored: dict[str, Any] = answer.raise_for_status().json()
        return stored

    def search(self, kind: str, **parameters: str) -> list[dict[str, Any]]:
        """What is there now, of all pages: servers that reuse an earlier search are asked not to."""
        found: list[dict[str, Any]] = []
        url: str | None = f"{self.url}/{kind}"
        asked: dict[str, str] | None = parameters
        while url is not None:
            answer = self._client.get(url, params=asked, headers={"Cache-Control": "no-cache"})
            bundle = answer.raise_for_status().json()
            found += [entry["resource"] for entry in bundle.get("entry", [])]
            url = next((link["url"] for link in bundle.get("link", []) if link["relation"] == "next"), None)
            asked = None
        return found

    def delete(self, reference: str) -> None:
        self._client.delete(f"{self.url}/{reference}").raise_for_status()

    def versions(self, kind: str, id_: str) -> int:
        bundle = self._client.get(f"{self.url}/{kind}/{id_}/_history").raise_for_status().json()
        return len(bundle["entry"])

    def close(self) -> None:
        self._client.close()
