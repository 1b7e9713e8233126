"""Resources on their way out: meta added, Bundles and OperationOutcomes made. FHIR R4."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

import orjson
from fastapi import Response

from bridge.model import Resource, StoredResource

FHIR_JSON = "application/fhir+json; charset=utf-8"


class FhirJson(Response):
    """A response of media type application/fhir+json, written by orjson."""

    media_type = FHIR_JSON

    def render(self, content: object) -> bytes:
        return b"" if content is None else orjson.dumps(content)


def instant(seconds: float) -> str:
    """FHIR instant with milliseconds, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def http_date(seconds: float) -> str:
    """The moment as HTTP writes it."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def with_meta(stored: StoredResource, elements: frozenset[str] = frozenset()) -> Resource:
    """A current resource with meta.versionId and meta.lastUpdated; only some elements where asked."""
    content = stored.content or {}
    meta: Resource = {"versionId": str(stored.version), "lastUpdated": instant(stored.last_updated)}
    if elements:
        kept = elements | {"resourceType", "id", *_MANDATORY.get(stored.resource_type, ())}
        content = {k: v for k, v in content.items() if k in kept}
        tag = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
        meta["tag"] = [tag]
    head = {"resourceType": stored.resource_type, "id": stored.id, "meta": meta}
    return head | {k: v for k, v in content.items() if k not in head}


_MANDATORY = {
    "ImagingStudy": ("status", "subject"),
    "Endpoint": ("status", "connectionType", "payloadType", "address"),
}


def searchset(
    base: str,
    links: Sequence[tuple[str, str]],
    matches: Iterable[Resource],
    included: Iterable[Resource],
    outcome: Resource | None,
    total: int | None,
) -> Resource:
    """A searchset Bundle."""
    entries: list[Resource] = [_entry(base, r, "match") for r in matches]
    entries += [_entry(base, r, "include") for r in included]
    if outcome is not None:
        entries.append({"resource": outcome, "search": {"mode": "outcome"}})
    bundle: Resource = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        bundle["total"] = total
    bundle["link"] = [{"relation": relation, "url": url} for relation, url in links]
    return bundle | ({"entry": entries} if entries else {})


def _entry(base: str, resource: Resource, mode: str) -> Resource:
    return {
        "fullUrl": f"{base}/{resource['resourceType']}/{resource['id']}",
        "resource": resource,
        "search": {"mode": mode},
    }


def history(base: str, links: Sequence[tuple[str, str]], versions: Sequence[StoredResource], total: int) -> Resource:
    """A history Bundle, newest first; a deletion is an entry without resource."""
    entries = []
    for one in versions:
        place = f"{one.resource_type}/{one.id}"
        entry: Resource = {"fullUrl": f"{base}/{place}"}
        if not one.deleted:
            entry["resource"] = with_meta(one)
        method = "DELETE" if one.deleted else "POST" if one.version == 1 else "PUT"
        status = {"DELETE": "204", "POST": "201", "PUT": "200"}[method]
        entry["request"] = {"method": method, "url": one.resource_type if method == "POST" else place}
        entry["response"] = {
            "status": status,
            "etag": f'W/"{one.version}"',
            "lastModified": instant(one.last_updated),
        }
        entries.append(entry)
    bundle: Resource = {"resourceType": "Bundle", "type": "history", "total": total}
    bundle["link"] = [{"relation": relation, "url": url} for relation, url in links]
    return bundle | ({"entry": entries} if entries else {})


def operation_outcome(code: str, diagnostics: str, severity: str = "error") -> Resource:
    """An OperationOutcome with one issue; `code` of issue-type. What of `diagnostics` cannot be shown is U+FFFD."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in diagnostics)
    issue = {"severity": severity, "code": code, "diagnostics": shown}
    return {"resourceType": "OperationOutcome", "issue": [issue]}
