"""What became of every attribute, as `explain` tells it of one study."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.code_tables import attribute_table
from bridge.translate import occurrences
from bridge.translate.effects import MAXIMUM_SAMPLE, sample
from bridge.translate.explanation import Explained, Level, Outcome, StudyExplanation, explain
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers
from bridge.translate.occurrences import Occurrence, Occurrences, Path
from tests.builders import STUDY, a_translator, headers


def counted(*instances: dict[str, Any]) -> tuple[list[Headers], Occurrences]:
    """The headers, and the occurrences of what they have; what is not kept by adding it to `more`."""
    made, found = [], Occurrences()
    for attributes in instances:
        more: dict[Path, Occurrence] = attributes.pop("more", {})
        one = headers(**attributes)
        made.append(one)
        found.add({**dict(_occurrences(one)), **more})
    return made, found


def _occurrences(headers: Headers, outer: Path = ()) -> Any:
    for keyword, values in headers.items():
        sequence = isinstance(values[0], Headers)
        yield (*outer, keyword), Occurrence((0x00080000,), "SQ" if sequence else "LO", 2, hash(repr(values)))
        for value in values:
            if isinstance(value, Headers):
                yield from _occurrences(value, (*outer, keyword))


def explained(*instances: dict[str, Any], **site: Any) -> StudyExplanation:
    made, found = counted(*instances)
    return explain(STUDY, made, found, a_translator(**site), attribute_table())


def told(study: StudyExplanation, name: str) -> Explained:
    (found,) = (a for a in study.attributes if ".".join(a.path) == name)
    return found


def test_an_attribute_is_told_with_its_elements_and_columns() -> None:
    study = explained({"PatientID": "P1"})
    found = told(study, "StudyDate")
    assert (found.outcome, found.level) == (Outcome.MAPPED, Level.STUDY)
    assert (found.elements, found.columns) == (("ImagingStudy.started",), ("dicom_study.study_date",))
    assert told(study, "TimezoneOffsetFromUTC").outcome is Outcome.USED
    assert told(study, "KVP").outcome is Outcome.TABLE
    assert told(study, "PatientID").elements == ("Patient.identifier", "Patient.id", "ImagingStudy.subject")
    assert not study.rejected


def test_a_value_that_cannot_be_used_is_rejected_with_the_reason_and_without_the_value() -> None:
    study = explained({"StudyDate": "SOON", "PatientSex": "SECRET"})
    assert told(study, "StudyDate").outcome is Outcome.REJECTED
    assert told(study, "StudyDate").reason == "is not a usable date; left out"
    assert told(study, "PatientSex").outcome is Outcome.REJECTED
    assert "SECRET" not in repr(study.attributes)
    assert study.rejected


def test_a_value_that_was_taken_with_a_remark_is_mapped_with_it() -> None:
    study = explained({"BodyPartExamined": "LEFT EAR LOBE", "PatientName": "A^B"}, {"instance": 2})
    assert told(study, "BodyPartExamined").outcome is Outcome.MAPPED
    assert "kept as display" in told(study, "BodyPartExamined").reason
    assert "differs among the instances" in told(study, "PatientName").reason


def test_an_attribute_that_gives_way_to_another_one_is_told_so() -> None:
    both = {"SeriesDate": "20240301", "PerformedProcedureStepStartDate": "20240302"}
    found = told(explained(both), "PerformedProcedureStepStartDate")
    assert (found.outcome, found.elements) == (Outcome.IGNORED, ())
    assert found.reason == "no effect here: where SeriesDate is empty"
    alone = told(explained({"PerformedProcedureStepStartDate": "20240302"}), "PerformedProcedureStepStartDate")
    assert alone.elements == ("ImagingStudy.series.started",)


def test_what_two_attributes_say_alike_is_told_of_both() -> None:
    from tests.unit.test_translate_study import item

    study = explained({"AccessionNumber": "A1", "RequestAttributesSequence": [item(AccessionNumber="A1")]})
    for name in ("AccessionNumber", "RequestAttributesSequence.AccessionNumber", "RequestAttributesSequence"):
        assert told(study, name).outcome is Outcome.MAPPED, name
        assert told(study, name).elements == ("ImagingStudy.identifier", "ImagingStudy.basedOn")


def test_a_name_that_stands_for_nobody_is_ignored() -> None:
    found = told(explained({"PatientName": "ANONYMOUS"}), "PatientName")
    assert found.outcome is Outcome.IGNORED
    assert "a name that stands for nobody is left out" in found.reason


def test_the_settings_of_the_site_decide() -> None:
    from tests.unit.test_translate_study import item

    order = {"IssuerOfAccessionNumberSequence": [item(LocalNamespaceEntityID="NEAR")]}
    name = "IssuerOfAccessionNumberSequence.LocalNamespaceEntityID"
    assert told(explained(order), name).outcome is Outcome.IGNORED
    found = told(explained(order, issuers=Issuers({"NEAR": "urn:oid:1.2.3"})), name)
    assert (found.outcome, found.elements) == (Outcome.USED, ("ImagingStudy.identifier", "ImagingStudy.basedOn"))


def test_what_is_not_read_private_or_empty_is_ignored() -> None:
    more = {
        ("HighBit",): Occurrence((0x00280102,), "US", 2, 1),
        ("ScanOptions",): Occurrence((0x00180022,), "CS", 0, 1),
        ("PatientComments",): Occurrence((0x00104000,), "LT", 0, 1),
        ("(0009,--) MAKER",): Occurrence((0x00090000,), "", 0, 0, private={0x00091001, 0x00091002}),
        ("PixelData",): Occurrence((0x7FE00010,), "OW", 8, 0),
    }
    study = explained({"more": more})
    assert told(study, "HighBit").reason == "not read"
    assert told(study, "ScanOptions").reason == "empty"
    assert told(study, "PatientComments").level is Level.PATIENT
    assert (told(study, "(0009,--) MAKER").private, told(study, "(0009,--) MAKER").reason) == (2, "private")
    assert told(study, "PixelData").outcome is Outcome.USED


def test_a_study_that_is_rejected_rejects_what_it_would_carry() -> None:
    study = explained({"PatientID": "P1"}, {"PatientID": "P2", "instance": 2})
    assert study.result is None
    assert study.refused.startswith("PatientID: the instances of this study name different patients")
    assert told(study, "StudyDate").outcome is Outcome.REJECTED
    assert told(study, "SliceThickness").outcome is not Outcome.REJECTED
    assert study.rejected


def test_instances_are_counted_and_different_values_seen() -> None:
    study = explained({"InstanceNumber": 1}, {"instance": 2, "StudyDescription": None}, {"instance": 3})
    assert told(study, "StudyDescription").instances == 2
    assert not told(study, "StudyDescription").differs
    assert told(study, "InstanceNumber").differs
    assert study.instances == 3


def test_what_is_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occurrences, "MAXIMUM_PATHS", 3)
    found = Occurrences()
    for number in range(10):
        one = Occurrence((number,), "LO", 2, number, value=f"v{number}")
        found.add({("StudyID",): one, (f"(0019,10{number:02})",): one})
    assert len(found.all()) == 3
    assert found.unlisted == 8
    assert list(found.all()["StudyID",].values) == ["v0", "v1", "v2"]


def test_a_sample_has_every_series_and_every_attribute_and_a_bound() -> None:
    many = [headers(series=series, instance=n) for series in (1, 2) for n in range(1, 50)]
    rare = headers(instance=99, DocumentTitle="T")
    kept = sample([*many, rare])
    assert rare in kept
    assert len({h.text("SeriesInstanceUID") for h in kept}) == 2
    assert len(kept) == 5
    assert len(sample([headers(series=n) for n in range(1, 100)])) == MAXIMUM_SAMPLE
