"""A FHIR Bundle of one DiagnosticReport with its Observations as an AI result. FHIR R4 and R5."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bridge.errors import Refusal, RefusedResult
from bridge.findings.contract import read_result
from bridge.findings.fhir_observation import Observations
from bridge.findings.model import RUN_ID, AiResult
from bridge.model import Resource
from bridge.translate.codes import CodeTables

_PRELIMINARY, _FINAL = ("registered", "partial", "preliminary"), ("final", "amended", "corrected", "appended")


def read_bundle(bundle: Resource, tables: CodeTables) -> AiResult:
    """The result that a Bundle holds, of whatever type; what its requests ask for is not looked at.

    From    DiagnosticReport: identifier (the run), imagingStudy or study with a Study Instance UID, issued, status,
            conclusion, result; Observation: see `Observations`; Device: name, version, manufacturer, UDI
    Raises  RefusedResult, naming the element: no or several reports, one without the label AIAST, what is referred to
            and not in the Bundle, several programs, what a result has no place for
    """
    try:
        item = _Result(bundle, tables).item()
    except RefusedResult:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        raise _refused("Bundle", "is not FHIR that can be read") from None
    return read_result(item, tables.coding_scheme)


def of_ai(resource: Resource) -> bool:
    """Whether it has the label of what AI asserts."""
    return "AIAST" in {label.get("code") for label in resource.get("meta", {}).get("security", ())}


class Bundled:
    """The resources of a Bundle by how they are referred to: fullUrl, or type and id."""

    def __init__(self, bundle: Resource) -> None:
        entries = [e for e in bundle.get("entry", ()) if isinstance(e.get("resource"), dict)]
        self.resources = [e["resource"] for e in entries]
        self.known = {e["fullUrl"]: e["resource"] for e in entries if "fullUrl" in e}
        self.known |= {f"{r['resourceType']}/{r['id']}": r for r in self.resources if "id" in r}

    def reports(self) -> list[Resource]:
        return [r for r in self.resources if r["resourceType"] == "DiagnosticReport"]

    def resolved(self, reference: Resource, place: str) -> Resource:
        found: Resource | None = self.known.get(reference.get("reference", ""))
        if found is None:
            raise _refused(place, "refers to what is not in the Bundle")
        return found

    def study(self, report: Resource) -> str:
        """The one Study Instance UID, from the references themselves or from the ImagingStudy in the Bundle."""
        studies = report["imagingStudy"] if "imagingStudy" in report else report.get("study", ())
        uids = {uid for reference in studies for uid in self._uids(reference)}
        if len(uids) != 1:
            raise _refused(
                "DiagnosticReport.imagingStudy", "must name one study by urn:dicom:uid, or one in the Bundle"
            )
        return uids.pop()

    def _uids(self, reference: Resource) -> Iterator[str]:
        there = self.known.get(reference.get("reference", ""), {})
        for identifier in (reference.get("identifier", {}), *there.get("identifier", ())):
            if identifier.get("system") == "urn:dicom:uid":
                yield identifier["value"].removeprefix("urn:oid:")


class _Result(Bundled):
    """The one result of AI that a Bundle is."""

    def __init__(self, bundle: Resource, tables: CodeTables) -> None:
        super().__init__(bundle)
        self._tables = tables

    def item(self) -> dict[str, Any]:
        reports = self.reports()
        if len(reports) != 1:
            raise _refused("Bundle.entry", "must have one DiagnosticReport")
        report = reports[0]
        if not of_ai(report):
            raise _refused(
                "DiagnosticReport.meta.security",
                "has no AIAST: only results of AI are taken; a reader's report goes to /reader-reports",
            )
        if report["status"] not in (*_PRELIMINARY, *_FINAL):
            raise _refused("DiagnosticReport.status", "is none of preliminary and final")
        if "issued" not in report:
            raise _refused("DiagnosticReport.issued", "is missing")
        found = [self.resolved(r, f"DiagnosticReport.result[{n}]") for n, r in enumerate(report.get("result", ()))]
        return {
            "run_id": _run_id(report),
            "model": self._model(found),
            "study_instance_uid": self.study(report),
            "produced_at": report["issued"],
            "findings": list(Observations(self.resolved, self._tables).findings(found)),
            "preliminary": report["status"] in _PRELIMINARY,
            "conclusion": report.get("conclusion", ""),
        }

    def _model(self, observations: list[Resource]) -> dict[str, str]:
        references = [o["device"] for o in observations if "device" in o]
        devices = [self.resolved(r, "Observation.device") for r in references]
        if not devices or any(d != devices[0] for d in devices):
            raise _refused("Observation.device", "must name the one program that made all of it")
        device = devices[0]
        names = [device.get("displayName"), *(n.get("name", n.get("value")) for n in _names(device))]
        versions = [v["value"] for v in device.get("version", ())]
        if not any(names) or len(versions) != 1:
            raise _refused("Device.version", "must be one, of a program that has a name")
        udi = next((u["carrierHRF"] for u in device.get("udiCarrier", ()) if "carrierHRF" in u), "")
        made = {"name": next(filter(None, names)), "version": versions[0]}
        return made | {"vendor": device.get("manufacturer", ""), "udi": udi}


def _names(device: Resource) -> list[Resource]:
    return [*device.get("deviceName", ()), *device.get("name", ())]


def _run_id(report: Resource) -> str:
    values = [i.get("value", "") for i in report.get("identifier", ())]
    found = next((v for v in values if re.fullmatch(RUN_ID, v)), "")
    if not found:
        raise _refused("DiagnosticReport.identifier", "must name the run: letters, digits and . _ : - alone")
    return str(found)


def _refused(field: str, reason: str) -> RefusedResult:
    return RefusedResult((Refusal(field, reason),))
