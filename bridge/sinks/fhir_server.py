"""A FHIR R4 server as a sink: one transaction for a study, fixed ids, nothing sent that is there."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from bridge.errors import ProjectError, RefusedByServer, RejectedInput, SinkUnavailable
from bridge.model import Resource, StoredResource, StudyState

logging.getLogger("httpx").setLevel(logging.WARNING)  # its INFO lines quote whole URLs, identifiers included
logging.getLogger("httpcore").setLevel(logging.WARNING)

FHIR_JSON = "application/fhir+json"
_ADDED_BY_SERVERS = frozenset({"meta", "text", "implicitRules", "language"})
_TRY_AGAIN = frozenset({401, 403, 408, 409, 412, 425, 429})
_SHARED_REMEMBERED = 10_000


class FhirServerSink:
    """Makes a FHIR server's ImagingStudy, Endpoint (and by policy Patient) match the state.

    `patients` = "match": the study refers to the one Patient on the server that has the patient's identifier, or
    by identifier alone when there is none; "create": the Patient made from DICOM is written under our id.
    """

    batch_size = 20
    wants_rows = False

    def __init__(
        self,
        name: str,
        url: str,
        *,
        patients: str = "match",
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name, self._url, self._patients = name, url.rstrip("/"), patients
        self._client = httpx.Client(
            auth=auth,
            verify=tls if tls is not None else True,
            headers={"Accept": FHIR_JSON, "Accept-Encoding": "identity"},
            timeout=timeout_s,
            follow_redirects=False,
            transport=transport,
            trust_env=False,
        )
        self._sent: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        self._client.close()

    def deliver(self, states: Sequence[StudyState]) -> list[ProjectError | None]:
        """Study by study. Raises SinkUnavailable when the server does not answer: nothing after it is tried."""
        outcomes: list[ProjectError | None] = []
        for state in states:
            try:
                self._deliver(state)
                outcomes.append(None)
            except RejectedInput as error:
                outcomes.append(error)
            except SinkUnavailable as error:
                outcomes += [error] * (len(states) - len(outcomes))
                break
        return outcomes

    def _deliver(self, state: StudyState) -> None:
        shared = [r for r in state.resources if r.content is not None and self._goes_out(r)]
        contents = [r.content for r in shared if self._sent.get((r.resource_type, r.id)) != r.version and r.content]
        for study in state.of_type("ImagingStudy"):
            if study.content is None:
                continue
            content = dict(study.content)
            if self._patients == "match":
                content["subject"] = self._subject(state, content)
            if not self._is_there(content):
                contents.append(content)
        if contents:
            self._transaction(contents)
        if len(self._sent) > _SHARED_REMEMBERED:
            self._sent.clear()
        self._sent |= {(r.resource_type, r.id): r.version for r in shared}

    def _goes_out(self, resource: StoredResource) -> bool:
        return resource.resource_type == "Endpoint" or (
            resource.resource_type == "Patient" and self._patients == "create"
        )

    def _subject(self, state: StudyState, study: Resource) -> Resource:
        """The one Patient with this identifier, else the identifier itself. Never a Patient found without a system."""
        id_ = study["subject"]["reference"].removeprefix("Patient/")
        patients = [p.content for p in state.of_type("Patient") if p.id == id_ and p.content is not None]
        identifiers = [i for p in patients for i in p.get("identifier", [])]
        for identifier in identifiers:
            if "system" not in identifier:
                continue
            token = f"{_escaped(identifier['system'])}|{_escaped(identifier['value'])}"
            found = self._search("Patient", {"identifier": token, "_count": "3"})
            if len(found) > 1:
                raise RejectedInput(
                    "Patient.identifier: the server has several patients with it; merge them, then replay"
                )
            if found:
                return {"reference": f"Patient/{found[0]['id']}", "type": "Patient", "identifier": identifier}
        if identifiers:
            return {"type": "Patient", "identifier": identifiers[0]}
        return {"type": "Patient", "display": "not identified in the images"}

    def _search(self, kind: str, parameters: Mapping[str, str]) -> list[Resource]:
        bundle = self._ask("GET", kind, params=parameters)
        entries = bundle.get("entry", []) if isinstance(bundle, dict) else []
        return [e["resource"] for e in entries if e.get("resource", {}).get("resourceType") == kind]

    def _is_there(self, content: Resource) -> bool:
        there = self._ask("GET", f"{content['resourceType']}/{content['id']}", missing_ok=True)
        if there is None:
            return False
        return {k: v for k, v in there.items() if k not in _ADDED_BY_SERVERS} == content

    def _transaction(self, contents: Sequence[Resource]) -> None:
        entries = [
            {
                "fullUrl": f"{self._url}/{c['resourceType']}/{c['id']}",
                "resource": c,
                "request": {"method": "PUT", "url": f"{c['resourceType']}/{c['id']}"},
            }
            for c in contents
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        answer = self._ask("POST", "", content=orjson.dumps(bundle))
        answered = answer.get("entry", []) if isinstance(answer, dict) else []
        failed = [s for e in answered if not (s := str(e.get("response", {}).get("status", ""))).startswith("2")]
        if failed or len(answered) != len(entries):
            raise RefusedByServer(f"sink {self.name}: the transaction was answered with {failed or 'missing entries'}")

    def _ask(self, method: str, path: str, *, missing_ok: bool = False, **kwargs: Any) -> Any:
        """The server's JSON answer; None for 404 and 410 where that is an answer."""
        if "content" in kwargs:
            kwargs["headers"] = {"Content-Type": FHIR_JSON, "Prefer": "return=minimal"}
        try:
            response = self._client.request(method, f"{self._url}/{path}".rstrip("/"), **kwargs)
        except httpx.TimeoutException:
            raise SinkUnavailable(f"sink {self.name}: no answer within the time allowed (timeout_s)") from None
        except httpx.HTTPError as error:
            raise SinkUnavailable(f"sink {self.name}: cannot be reached ({type(error).__name__}): check url") from None
        if missing_ok and response.status_code in {404, 410}:
            return None
        return self._checked(method, response)

    def _checked(self, method: str, response: httpx.Response) -> Any:
        code = response.status_code
        if 200 <= code < 300:
            try:
                return orjson.loads(response.content)
            except orjson.JSONDecodeError:
                raise SinkUnavailable(f"sink {self.name}: the answer is not FHIR JSON: check url") from None
        hint = {401: ": check the credentials", 403: ": the account may not do this", 404: ": check url"}.get(code, "")
        if code in _TRY_AGAIN or code >= 500 or 300 <= code < 400 or (code == 404 and method != "PUT"):
            raise SinkUnavailable(f"sink {self.name}: HTTP {code}{hint}", _retry_after(response))
        raise RefusedByServer(f"sink {self.name}: HTTP {code}{_issues(response)}")


def _escaped(value: str) -> str:
    """A token's part with the characters that FHIR search gives a meaning escaped (R4 search 3.1.1.4.0.2)."""
    for character in "\\,|$":
        value = value.replace(character, "\\" + character)
    return value


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    if value.isdigit():
        return min(float(value), 3600.0)
    try:
        asked = parsedate_to_datetime(value).timestamp()
        sent = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return None
    return min(max(asked - sent, 0.0), 3600.0)


def _issues(response: httpx.Response) -> str:
    """Codes and places of an OperationOutcome; never its text, which may quote a value."""
    try:
        outcome = orjson.loads(response.content)
        issues = outcome.get("issue", []) if isinstance(outcome, dict) else []
        named = [f"{i.get('code', '')} {' '.join(i.get('expression', []))}".strip() for i in issues[:5]]
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return ""
    return ": " + "; ".join(named) if named else ""
