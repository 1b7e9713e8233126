"""What a FHIR Bundle of a reader's own DiagnosticReport with its Observations says of AI results. FHIR R4 and R5."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from bridge.errors import Refusal, RefusedResult
from bridge.findings.concepts import RESULT_SYSTEM
from bridge.findings.contract import read_result
from bridge.findings.fhir_bundle import Bundled, of_ai
from bridge.findings.fhir_observation import Observations
from bridge.findings.judgement import ReadersReport, Said, kept_report, report_as_json
from bridge.findings.model import MOST_FINDINGS, MOST_TEXT, Finding
from bridge.findings.names import uid_name
from bridge.findings.review import Reader
from bridge.model import KeptReport, Resource
from bridge.translate.codes import DCM, CodeTables

_SIGNED = ("final", "amended", "corrected", "appended", "modified")
_SILENT = ("registered", "partial", "preliminary", "cancelled", "entered-in-error", "unknown")
_TAKEN_BACK = ("cancelled", "entered-in-error")
_REPLACES = "http://hl7.org/fhir/StructureDefinition/observation-replaces"
_UIDS, _TRACKING_UID = "urn:dicom:uid", "112040"
_SAYING = ("value", "component", "hasMember", "note")


def read_readers_report(bundle: Resource, tables: CodeTables) -> KeptReport:
    """What a reader's report says of AI results, by its identifier; nothing while it is not signed, or once withdrawn.

    From    DiagnosticReport without AIAST: identifier, imagingStudy or study, status, issued, resultsInterpreter or
            performer; all that it refers to; result and hasMember: Observations in the Bundle, or those of AI. What
            does not speak of AI is not kept
    Raises  RefusedResult, naming the element: no or several reports, no reader, one that refers to no result of AI, an
            Observation of AI's finding that cannot be read
    """
    try:
        return _Report(bundle, tables).kept()
    except RefusedResult:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError):
        raise _refused("Bundle", "is not FHIR that can be read") from None


class _Report(Bundled):
    def __init__(self, bundle: Resource, tables: CodeTables) -> None:
        super().__init__(bundle)
        reports = [r for r in self.reports() if not of_ai(r)]
        if len(reports) != 1:
            raise _refused("Bundle.entry", "must have one DiagnosticReport without AIAST: the reader's own")
        self._report = reports[0]
        self.known |= {f"#{r['id']}": r for r in self._report.get("contained", ()) if "id" in r}
        self._tables = tables
        self._observations = Observations(self.resolved, tables)

    def kept(self) -> KeptReport:
        report = self._report
        if report["status"] not in (*_SIGNED, *_SILENT):
            raise _refused("DiagnosticReport.status", "is none of FHIR's")
        signed_at = _moment(report, "issued")
        changed = report.get("meta", {}).get("lastUpdated")
        as_of = _moment(report["meta"], "lastUpdated") if changed else signed_at
        study = self.study(report)
        said = list(self._said(study))
        names = sorted({name for part in self._referring() for name in self._names(part)})
        if not names and not said:
            raise _refused(
                "DiagnosticReport", "refers to no result of AI: by its identifiers, its references or a Tracking UID"
            )
        made = None
        if report["status"] in _SIGNED:
            words = str(report.get("conclusion", ""))[:MOST_TEXT]
            made = ReadersReport(self._reader(), signed_at, tuple(names), tuple(said), words)
        content = report_as_json(made)
        if made is not None and kept_report(content) is None:
            raise _refused("DiagnosticReport", "has control characters in its text, or more than can be kept")
        return KeptReport(_key(report), study, as_of.timestamp(), content)

    def _reader(self) -> Reader:
        """Who signed it: the first that interpreted it, else the first that made it, by name and identifier."""
        for reference in (*self._report.get("resultsInterpreter", ()), *self._report.get("performer", ())):
            there = self.known.get(reference.get("reference", ""), {})
            name = reference.get("display") or _name(there)
            identifier: Resource = reference.get("identifier") or next(iter(there.get("identifier", ())), {})
            if name:
                system = str(identifier.get("system", ""))[:200]
                return Reader(_line(name), _line(system), _line(str(identifier.get("value", ""))))
        raise _refused("DiagnosticReport.resultsInterpreter", "names nobody: who signed it must have a name")

    def _referring(self) -> Iterator[Resource]:
        """Every reference in the report but those to its results."""
        yield from _references({name: part for name, part in self._report.items() if name not in _NOT_REFERRING})

    def _names(self, reference: Resource) -> Iterator[str]:
        """What could be a result of AI, of all that a reference says of what it leads to."""
        there = self.known.get(reference.get("reference", ""), {})
        kind, _, id_ = _last_two(reference.get("reference", "")).partition("/")
        if kind in ("DiagnosticReport", "Observation") and id_:
            yield f"{kind}/{id_}"
        if there.get("resourceType") in ("DiagnosticReport", "Observation") and "id" in there:
            yield f"{there['resourceType']}/{there['id']}"
        for identifier in (reference.get("identifier", {}), *there.get("identifier", ())):
            yield from _by_identifier(identifier)

    def _said(self, study: str) -> Iterator[Said]:
        waiting = list(self._report.get("result", ()))
        seen: set[int] = set()
        while waiting:
            reference = waiting.pop(0)
            found = self.known.get(reference.get("reference", ""))
            if found is None:
                if names := sorted(set(self._names(reference))):
                    yield Said(tuple(names))
            elif id(found) not in seen:
                seen.add(id(found))
                yield from self._of(found, study)
                waiting += found.get("hasMember", ())
            if len(seen) > MOST_FINDINGS:
                raise _refused("DiagnosticReport.result", f"has more than {MOST_FINDINGS} Observations")

    def _of(self, observation: Resource, study: str) -> Iterator[Said]:
        own = {name for one in observation.get("identifier", ()) for name in _by_identifier(one, lesion=True)}
        replaced = [e["valueReference"] for e in observation.get("extension", ()) if e.get("url") == _REPLACES]
        same = own | {name for one in replaced for name in self._names(one)}
        derived = {name for one in observation.get("derivedFrom", ()) for name in self._names(one)}
        names = tuple(sorted(same | derived))
        if not names:
            return
        if observation.get("status") in _TAKEN_BACK:
            if same:
                yield Said(names, same=True, in_error=True)
        elif "dataAbsentReason" in observation:
            return  # the reader could not tell, which denies nothing
        elif any(key.startswith(_SAYING) for key in observation):
            yield Said(names, self._finding(observation, study), same=bool(same))
        else:
            yield Said(names, same=bool(same))

    def _finding(self, observation: Resource, study: str) -> Finding:
        """The Observation as a finding; members that are findings themselves speak for themselves."""
        members = [r for r in observation.get("hasMember", ()) if "valueQuantity" in self._there(r)]
        (item,) = self._observations.findings([observation | {"hasMember": members}])
        item = {name: value for name, value in item.items() if name != "images"}
        whole: dict[str, Any] = {"run_id": "report", "model": {"name": "none", "version": "none"}}
        whole |= {"study_instance_uid": study, "produced_at": self._report["issued"], "findings": [item]}
        return read_result(whole, self._tables.coding_scheme).findings[0]

    def _there(self, reference: Resource) -> Resource:
        found: Resource = self.known.get(reference.get("reference", ""), {})
        return found


_NOT_REFERRING = ("result", "subject", "imagingStudy", "study", "contained")


def _references(part: object) -> Iterator[Resource]:
    if isinstance(part, list):
        for one in part:
            yield from _references(one)
    elif isinstance(part, dict):
        if isinstance(part.get("reference"), str) or isinstance(part.get("identifier"), dict):
            yield part
        for one in part.values():
            yield from _references(one)


def _by_identifier(identifier: Resource, *, lesion: bool = False) -> Iterator[str]:
    """The name that an identifier of a result, of a document or, where asked, of a lesion is."""
    value = str(identifier.get("value", ""))
    tracking = any(
        c.get("system") == DCM and c.get("code") == _TRACKING_UID for c in identifier.get("type", {}).get("coding", ())
    )
    if identifier.get("system") == RESULT_SYSTEM:
        yield f"{RESULT_SYSTEM}|{value}"
    elif value and (tracking if lesion else identifier.get("system") == _UIDS):
        yield uid_name(value.removeprefix("urn:oid:"))


def _key(report: Resource) -> str:
    """By what name a report is known again: its identifier, else its id."""
    for identifier in report.get("identifier", ()):
        if identifier.get("value"):
            return f"{identifier.get('system', '')}|{identifier['value']}"[:500]
    if "id" in report:
        return f"DiagnosticReport/{report['id']}"[:500]
    raise _refused("DiagnosticReport.identifier", "is missing: a corrected report is known by it")


def _moment(resource: Resource, element: str) -> datetime:
    try:
        found = datetime.fromisoformat(resource[element])
    except (KeyError, ValueError, TypeError):
        found = None
    if found is None or found.tzinfo is None:
        raise _refused(f"DiagnosticReport.{element}", "must be a moment with a zone")
    return found


def _name(practitioner: Resource) -> str:
    for one in practitioner.get("name", ()):
        return str(one.get("text") or " ".join([*one.get("given", ()), one.get("family", "")]))
    return ""


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200].strip()


def _last_two(reference: str) -> str:
    return "/".join(reference.partition("/_history/")[0].rsplit("/", 2)[-2:])


def _refused(field: str, reason: str) -> RefusedResult:
    return RefusedResult((Refusal(field, reason),))
