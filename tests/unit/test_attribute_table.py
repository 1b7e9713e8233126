"""mappings/codes/attributes.csv says what the translation does: each is held against the other, both ways."""

from __future__ import annotations

import csv
import re
from importlib.resources import files
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from pydicom.datadict import tag_for_keyword

from bridge.code_tables import attribute_table, dicom_columns
from bridge.sources.element_plans import NOTED
from bridge.translate.effects import Effects, changed, wanted_paths
from bridge.translate.explanation import AttributeRule, Kind
from bridge.translate.headers import FLOAT_VRS, INTEGER_VRS, WANTED, Headers, PersonName, Value
from bridge.translate.identifiers import Issuers
from bridge.translate.occurrences import Path
from tests.builders import STUDY, a_translator

RULES = [rule for rules in attribute_table().rules.values() for rule in rules]
CARRIED = [rule for rule in RULES if rule.element]
COLUMN_PATHS = {tuple(re.sub(r"\[\d+\]$", "", p).split(".")) for c in dicom_columns() for p in c.paths}

FIXED: dict[str, Value] = {
    "StudyInstanceUID": STUDY,
    "Modality": "CT",
    "PatientSex": "F",
    "Laterality": "L",
    "ImageLaterality": "L",
    "TimezoneOffsetFromUTC": "+0100",
    "CodingSchemeDesignator": "LN",
    "UniversalEntityIDType": "ISO",
    "LocalNamespaceEntityID": "NEAR",
    "TypeOfPatientID": "RFID",
    "FrameLaterality": "L",
    "MeasurementLaterality": "L",
}
MODIFIER = "AnatomicRegionSequence.AnatomicRegionModifierSequence"
FIXED_AT: dict[str, Value] = {
    f"{MODIFIER}.CodeValue": "7771000",
    f"{MODIFIER}.CodingSchemeDesignator": "SCT",
    "ProcedureCodeSequence.CodingSchemeDesignator": "99X",
    "CodingSchemeIdentificationSequence.CodingSchemeDesignator": "99X",
}
OF_VR: dict[str, Value] = {"DA": "20240301", "TM": "091500", "DT": "20240301091500", "AS": "040Y"}
CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
DESIGNATOR = ("UniversalEntityID", "UniversalEntityIDType")
INSIDE: dict[str, tuple[str, ...]] = {
    "EquivalentCodeSequence": CODE,
    "ProcedureCodeSequence": CODE,
    "RequestedProcedureCodeSequence": CODE,
    "ReasonForRequestedProcedureCodeSequence": CODE,
    "AnatomicRegionSequence": CODE,
    "AnatomicRegionModifierSequence": CODE,
    "PersonIdentificationCodeSequence": CODE,
    "IssuerOfPatientIDQualifiersSequence": DESIGNATOR,
    "IssuerOfAccessionNumberSequence": DESIGNATOR,
    "OrderPlacerIdentifierSequence": DESIGNATOR,
    "OrderFillerIdentifierSequence": DESIGNATOR,
    "IssuerOfAdmissionIDSequence": DESIGNATOR,
    "IssuerOfTheSpecimenIdentifierSequence": DESIGNATOR,
    "IssuerOfTheContainerIdentifierSequence": DESIGNATOR,
}
"""What an item needs for a row of a whole sequence."""

TITLES = ("DocumentTitle", "ConceptNameCodeSequence", "ContentLabel")
REQUESTS = ("", "RequestAttributesSequence.", "ReferencedRequestSequence.")
PROCEDURES = ("ProcedureCodeSequence", "RequestAttributesSequence.ProcedureCodeSequence")
REASONS = tuple(f"{outer}ReasonForRequestedProcedureCodeSequence" for outer in REQUESTS)
DATES = ("SeriesDate", "PerformedProcedureStepStartDate", "AcquisitionDate", "AcquisitionDateTime")
SHARED, EACH = (f"{groups}FunctionalGroupsSequence.FrameAnatomySequence" for groups in ("Shared", "PerFrame"))
REGIONS = ("AnatomicRegionSequence", f"{SHARED}.AnatomicRegionSequence", f"{EACH}.AnatomicRegionSequence")
SIDES = ("Laterality", "ImageLaterality", f"{SHARED}.FrameLaterality", f"{EACH}.FrameLaterality")
WITHOUT: dict[str, tuple[str, ...]] = {
    "ProcedureCodeSequence.LongCodeValue": ("ProcedureCodeSequence.CodeValue",),
    "ProcedureCodeSequence.URNCodeValue": ("ProcedureCodeSequence.CodeValue", "ProcedureCodeSequence.LongCodeValue"),
    **{f"{outer}RequestedProcedureCodeSequence": PROCEDURES for outer in REQUESTS},
    **{f"{outer}ReasonForTheRequestedProcedure": REASONS for outer in REQUESTS},
    "IssuerOfPatientID": ("IssuerOfPatientIDQualifiersSequence",),
    "PerformedLocation": ("InstitutionalDepartmentName",),
    "DeviceSerialNumber": ("DeviceUID",),
    "SpecimenDescriptionSequence.SpecimenUID": ("SpecimenDescriptionSequence.IssuerOfTheSpecimenIdentifierSequence",),
    "ContainerIdentifier": ("SpecimenDescriptionSequence",),
    "IssuerOfTheContainerIdentifierSequence": ("SpecimenDescriptionSequence",),
    "PerformedProcedureStepStartDate": DATES[:1],
    "PerformedProcedureStepStartTime": DATES[:1],
    "AcquisitionDate": DATES[:2],
    "AcquisitionTime": DATES[:2],
    "AcquisitionDateTime": DATES[:3],
    "PerFrameFunctionalGroupsSequence.FrameContentSequence.FrameAcquisitionDateTime": DATES,
    f"{SHARED}.AnatomicRegionSequence": (REGIONS[0], REGIONS[2]),
    f"{EACH}.AnatomicRegionSequence": REGIONS[:2],
    "SegmentSequence.AnatomicRegionSequence": REGIONS,
    "BodyPartExamined": (*REGIONS, "SegmentSequence"),
    "ImageLaterality": SIDES[:1],
    f"{SHARED}.FrameLaterality": (*SIDES[:2], "MeasurementLaterality", MODIFIER),
    f"{EACH}.FrameLaterality": (*SIDES[:2], "MeasurementLaterality", MODIFIER),
    "MeasurementLaterality": SIDES,
    MODIFIER: (*SIDES, "MeasurementLaterality"),
    "ConceptNameCodeSequence.CodeMeaning": TITLES[:1],
    "ContentLabel": TITLES[:2],
    "ImageType": TITLES,
}
"""An attribute that only speaks where others are silent → those others."""


def value_of(path: Path) -> Value:
    keyword, vr = path[-1], WANTED[path[-1]]
    number = sum(map(ord, ".".join(path))) % 997 + 1
    if ".".join(path) in FIXED_AT:
        return FIXED_AT[".".join(path)]
    if keyword in FIXED:
        return FIXED[keyword]
    if vr in FLOAT_VRS | INTEGER_VRS:
        return float(number) if vr in FLOAT_VRS else number
    if vr == "PN":
        return PersonName(f"{keyword}^Name")
    return OF_VR.get(vr, f"1.2.{number}" if vr == "UI" or keyword == "UniversalEntityID" else f"TEXT {number}")


def with_all(paths: set[Path]) -> Headers:
    """An instance that has every one of these attributes, each with a value of its own."""
    tree: dict[str, Any] = {}
    for path in paths:
        place = tree
        for keyword in path:
            place = place.setdefault(keyword, {})

    def built(node: dict[str, Any], outer: Path) -> Headers:
        made: dict[str, tuple[Value, ...]] = {}
        for keyword, inner in sorted(node.items()):
            path = (*outer, keyword)
            made[keyword] = (built(inner, path),) if WANTED[keyword] == "SQ" else (value_of(path),)
        return Headers(made)

    return built(tree, ())


def every_path() -> set[Path]:
    paths = {rule.path for rule in RULES if all(k in WANTED for k in rule.path)} | COLUMN_PATHS
    return paths | {(*p, k) for p in paths for k in INSIDE.get(p[-1], ())}


def elements_of(*instances: Headers) -> set[str]:
    """Every element that the translation fills, but those that hold others."""
    result = a_translator().translate(STUDY, {"a": instances})
    (study,) = (r for r in result.resources if r["resourceType"] == "ImagingStudy")
    series = study["series"][0]
    held = {"Patient": result.patient, "ImagingStudy": study, "ImagingStudy.series": series}
    held["ImagingStudy.series.instance"] = series["instance"][0]
    return {f"{path}.{name}" for path, one in held.items() for name in one or ()} - held.keys()


FULL = with_all(every_path())
ELEMENTS = sorted({rule.element for rule in CARRIED} | elements_of(FULL))


def effects_for(path: Path) -> Effects:
    headers, name = FULL, ".".join(path)
    silent = WITHOUT.get(name, ())
    if path[-1] == "LocalNamespaceEntityID":
        silent = tuple(".".join((*path[:-1], keyword)) for keyword in DESIGNATOR)
    for other in silent:
        headers = changed(headers, tuple(other.split(".")), lambda _keyword, _values: ())
    translator = a_translator(issuers=Issuers({"NEAR": "urn:oid:1.2.99"}))
    return Effects(translator, [headers])


@pytest.mark.parametrize("rule", CARRIED, ids=lambda r: f"{'.'.join(r.path)} → {r.element}")
def test_an_attribute_decides_the_element_its_row_names(rule: AttributeRule) -> None:
    assert effects_for(rule.path).of(rule.path, [rule.element]).elements == (rule.element,)


@pytest.mark.parametrize("context", ["", *WITHOUT], ids=lambda c: f"where {c} speaks" if c else "full")
def test_no_attribute_decides_an_element_that_no_row_names(context: str) -> None:
    effects = effects_for(tuple(context.split(".")))
    for path in sorted(effects.paths):
        if WANTED[path[-1]] == "SQ":
            continue
        named = {rule.element for rule in attribute_table().rules_of(path)}
        found = set(effects.of(path, ELEMENTS).elements)
        assert found <= named, f"{'.'.join(path)} decides {found - named}: add rows to mappings/codes/attributes.csv"


@pytest.mark.parametrize("path", sorted({r.path for r in RULES if r.kind is Kind.KEPT}), ids=".".join)
def test_what_is_only_kept_decides_nothing(path: Path) -> None:
    found = effects_for(path).of(path, ELEMENTS).elements
    assert found == (), f"{'.'.join(path)} decides {found}: it is mapped or used in mappings/codes/attributes.csv"


def test_every_attribute_that_is_read_has_a_row_or_a_column() -> None:
    told = {keyword for path in {r.path for r in RULES} | COLUMN_PATHS for keyword in path}
    assert WANTED.keys() - told == set(), "add rows to mappings/codes/attributes.csv"


def test_the_rows_without_an_element_name_what_the_reader_looks_at() -> None:
    used = {rule.path for rule in RULES if rule.kind is Kind.USED and not rule.element}
    meta = {"FileMetaInformationGroupLength", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID"}
    assert {tag_for_keyword(path[-1]) for path in used} == NOTED | {tag_for_keyword(k) for k in meta}


def test_every_row_names_attributes_of_the_dictionary_once_with_a_source() -> None:
    assert len({(rule.path, rule.element) for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert all(tag_for_keyword(keyword) for keyword in rule.path), rule.path
        assert re.match(r"PS3\.\d+ ", rule.source), rule.path
        assert bool(rule.element) == (rule.kind is Kind.MAPPED) or rule.kind is Kind.USED, rule.path


CLASSES = {
    "ImagingStudy.series": "ImagingStudySeries",
    "ImagingStudy.series.instance": "ImagingStudySeriesInstance",
}


@pytest.mark.parametrize("element", sorted({rule.element for rule in CARRIED}))
def test_every_element_is_one_of_fhir_r4(element: str) -> None:
    holder, _, name = element.rpartition(".")
    assert name in get_fhir_model_class(CLASSES.get(holder, holder)).model_fields


def test_the_levels_name_attributes_of_the_dictionary_once() -> None:
    text = (files("mappings") / "codes" / "attribute_levels.csv").read_text("utf-8")
    keywords = [row["keyword"] for row in csv.DictReader(text.splitlines())]
    assert len(set(keywords)) == len(keywords) > 100
    assert all(tag_for_keyword(keyword) for keyword in keywords)


def test_the_full_instance_has_every_attribute_that_is_read() -> None:
    found = {keyword for path in wanted_paths(FULL) for keyword in path}
    assert WANTED.keys() - found == set()
