"""A DICOM SR document of TID 1500 (Measurement Report) as an AI result. Source: PS3.16 TID 1500, 1410, 1411, 1501."""

from __future__ import annotations

from collections.abc import Container, Iterator
from datetime import tzinfo
from typing import Any

from pydicom import config
from pydicom.dataset import Dataset

from bridge.errors import InvalidDicomValue, InvalidFile, Refusal, RefusedResult
from bridge.findings.contract import read_result
from bridge.findings.model import AiResult
from bridge.findings.part10 import opened
from bridge.findings.sr_groups import Groups
from bridge.findings.sr_tree import ContentItem, Json, check_tree, evidence, text
from bridge.translate.dates import fhir_date_time

_REPORT, _MEASUREMENTS, _DERIVED = "126000 DCM", "126010 DCM", "126011 DCM"
_EVALUATIONS, _GROUP = "C0034375 UMLS", "125007 DCM"
_NAME, _VERSION = "111001 DCM", "111003 DCM"


def read_sr(content: bytes, schemes: Container[str], zone: tzinfo | None) -> AiResult:
    """The result that a Part 10 file holds. Its run is named by its SOP Instance UID.

    From    root 126000; measurement groups with finding, site, tracking, measurements, evaluations, regions and
            segments; derived measurements; qualitative evaluations; TID 4019, else the device that observed
    Raises  RefusedResult, naming the attribute or the field: another kind of document, one by a person, one without
            program and version, one that names several, a time without zone, a unit that is none of UCUM
    """
    try:
        document = opened(content)
    except InvalidFile as error:
        raise _refused("", f"cannot be read as a DICOM SR document: {error}") from None
    return result_of(document, schemes, zone)


def series_of(content: bytes) -> str:
    """The Series Instance UID of a Part 10 file that `read_sr` has read."""
    with config.disable_value_validation():
        return text(opened(content), "SeriesInstanceUID")


def findings_by_person(document: Dataset, schemes: Container[str], zone: tzinfo | None) -> AiResult:
    """What a person found, in the form of a result; its model stands for nobody. Raises RefusedResult."""
    return _read(document, schemes, zone, {"name": "none", "version": "none"})


def result_of(document: Dataset, schemes: Container[str], zone: tzinfo | None) -> AiResult:
    """The same of a document that is read already."""
    return _read(document, schemes, zone, None)


def _read(document: Dataset, schemes: Container[str], zone: tzinfo | None, model: Json | None) -> AiResult:
    try:
        with config.disable_value_validation():
            check_tree(document)
            item = _item(document, zone, model)
    except RefusedResult:
        raise
    except Exception:  # noqa: BLE001  a damaged file fails anywhere in the library; its messages may quote values
        raise _refused("", "is not a DICOM SR document that can be read") from None
    return read_result(item, schemes)


def is_measurement_report(document: Dataset) -> bool:
    """Whether its root is Imaging Measurement Report (126000 DCM)."""
    root = ContentItem(document)
    return root.value_type == "CONTAINER" and root.name == _REPORT


def is_by_person(document: Dataset) -> bool:
    """Whether a person observed it and no device: by TID 1002, and where that says nothing, by who verified it."""
    root = ContentItem(document)
    if any(name and version for name, version in _algorithms(root)):
        return False
    observers = {item.code["code"] for item in root.children("121005 DCM") if item.code}
    if observers:
        return "121007" not in observers
    authors = {text(one, "ObserverType") for one in document.get("AuthorObserverSequence") or ()}
    named = root.child("121008 DCM") is not None or bool(document.get("VerifyingObserverSequence"))
    return named or "PSN" in authors


def _item(dataset: Dataset, zone: tzinfo | None, model: Json | None) -> Json:
    """The document as the JSON form of a result, which is then held to everything that form is held to."""
    root = ContentItem(dataset)
    if not is_measurement_report(dataset):
        raise _refused("ConceptNameCodeSequence", "is not Imaging Measurement Report: only TID 1500 is taken")
    groups = Groups(evidence(dataset))
    return {
        "run_id": text(dataset, "SOPInstanceUID"),
        "model": model or _model(dataset, root),
        "study_instance_uid": text(dataset, "StudyInstanceUID"),
        "produced_at": produced_at(dataset, zone),
        "findings": list(_findings(root, groups)),
        "preliminary": text(dataset, "VerificationFlag") != "VERIFIED",
    }


def _findings(root: ContentItem, groups: Groups) -> Iterator[Json]:
    number = 0
    for container in root.children(_MEASUREMENTS):
        for group in container.children(_GROUP, value_type="CONTAINER"):
            number += 1
            yield from groups.of_group(group, f"{number}")
    for n, container in enumerate(root.children(_DERIVED), 1):
        yield from groups.derived(container, f"d{n}")
    for n, container in enumerate(root.children(_EVALUATIONS), 1):
        yield from groups.evaluations(container, {}, f"q{n}")


def _model(dataset: Dataset, root: ContentItem) -> Json:
    """The one program: by TID 4019 wherever it stands, else the observing device, else the equipment."""
    named = {(a, b) for a, b in _algorithms(root) if a and b}
    vendor = text(dataset, "Manufacturer")[:200]
    if len(named) > 1:
        raise _refused("ContentSequence", "names several programs or versions: one result is of one program")
    if named:
        name, version = named.pop()
        return {"name": name, "version": version, "vendor": vendor}
    observers = {item.code["code"] for item in root.children("121005 DCM") if item.code}
    if observers == {"121006"}:
        raise _refused("ContentSequence", "is observed by a person: a reader's report is not a result of a program")
    device = next((i.words for i in root.children("121015 DCM", "121013 DCM") if i.words), "")
    name, version = device or text(dataset, "ManufacturerModelName"), text(dataset, "SoftwareVersions")
    if not name or not version:
        raise _refused("ContentSequence", "names no program with a version: TID 4019, or device and SoftwareVersions")
    return {"name": name[:200], "version": version[:200], "vendor": vendor}


def _algorithms(item: ContentItem, depth: int = 0) -> Iterator[tuple[str, str]]:
    """(name, version) wherever they stand together; they lie four levels deep at most (root, container, group, NUM)."""
    name, version = item.child(_NAME), item.child(_VERSION)
    if name is not None or version is not None:
        yield (name.words[:200] if name else "", version.words[:200] if version else "")
    if depth < 3:
        for child in item.children():
            yield from _algorithms(child, depth + 1)


def produced_at(dataset: Dataset, zone: tzinfo | None) -> str:
    """When a document was made, with its zone. Raises RefusedResult when that is no moment."""
    said: Any = [text(dataset, k) for k in ("ContentDate", "ContentTime", "TimezoneOffsetFromUTC")]
    try:
        found = fhir_date_time(said[0], said[1], said[2], zone, "ContentDate")
    except InvalidDicomValue as error:
        raise _refused(error.keyword, "is not a usable date") from None
    if found is None or "T" not in found:
        raise _refused("ContentTime", "needs TimezoneOffsetFromUTC, or the setting time_zone, to be a moment")
    return found


def _refused(field: str, reason: str) -> RefusedResult:
    return RefusedResult((Refusal(field, reason),))
