"""When a series began, which body part and side it shows, what its instances are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bridge.code_tables import code_tables
from bridge.translate.codes import UnmappedCodes
from bridge.translate.identifiers import AeTitle, Issuers
from bridge.translate.instances import NUMBER_OF_FRAMES
from tests.builders import headers
from tests.studies import a_code, item, remarked, series_of, study_of, translated

SCT_CHEST, SCT_KNEE = a_code("43799004", "SCT", "Chest"), a_code("72696002", "SCT", "Knee")


def anatomy(*regions: Any, side: str | None = None) -> Any:
    made = item(AnatomicRegionSequence=list(regions)) if regions else item()
    if side:
        made.FrameLaterality = side
    return item(FrameAnatomySequence=[made])


@pytest.mark.parametrize(
    ("attributes", "started"),
    [
        ({"SeriesDate": "20240301", "SeriesTime": "0930"}, "2024-03-01T09:30:00+01:00"),
        ({"SeriesDate": "20240301"}, "2024-03-01"),
        ({"PerformedProcedureStepStartDate": "20240302", "PerformedProcedureStepStartTime": "10"},
         "2024-03-02T10:00:00+01:00"),
        ({"SeriesDate": "soon", "AcquisitionDate": "20240303", "AcquisitionTime": "101112.5"},
         "2024-03-03T10:11:12.5+01:00"),
        ({"AcquisitionDateTime": "20240304101112.250000-0500"}, "2024-03-04T10:11:12.25-05:00"),
        ({"AcquisitionDateTime": "202403041011"}, "2024-03-04T10:11:00+01:00"),
        ({"AcquisitionDateTime": "2024"}, "2024"),
        ({}, None),
    ],
)  # fmt: skip
def test_a_series_began_when_the_first_of_its_dates_says(attributes: dict[str, str], started: str | None) -> None:
    assert series_of(headers(**attributes)).get("started") == started


def test_a_series_that_says_no_date_began_with_its_earliest_acquisition() -> None:
    times = ["093005", "093001", "093009"]
    found = series_of(
        *(headers(instance=i, AcquisitionDate="20240301", AcquisitionTime=t) for i, t in enumerate(times))
    )
    assert found["started"] == "2024-03-01T09:30:01+01:00"


def test_an_enhanced_image_began_with_its_earliest_frame() -> None:
    frames = [
        item(FrameContentSequence=[item(FrameAcquisitionDateTime=f"202403010930{s}")]) for s in ("05.5", "01.25", "09")
    ]
    found = series_of(headers(PerFrameFunctionalGroupsSequence=frames, NumberOfFrames=3))
    assert found["started"] == "2024-03-01T09:30:01.25+01:00"


@pytest.mark.parametrize(
    ("day", "clock", "started"),
    [
        ("20240701", "0915", "2024-07-01T09:15:00+02:00"),
        ("20241027", "0130", "2024-10-27T01:30:00+02:00"),
        ("20241027", "0230", "2024-10-27"),
        ("20241027", "0330", "2024-10-27T03:30:00+01:00"),
        ("20240331", "0230", "2024-03-31"),
    ],
)
def test_the_sites_zone_counts_for_that_day_and_no_hour_is_guessed(day: str, clock: str, started: str) -> None:
    one = headers(StudyDate=day, StudyTime=clock, TimezoneOffsetFromUTC=None)
    result = translated(one, zone=ZoneInfo("Europe/Vienna"))
    assert study_of(result)["started"] == started
    assert remarked(result) == (["StudyTime"] if len(started) == 10 else [])


def test_who_sent_it_may_live_in_another_zone_and_an_offset_counts_before_both() -> None:
    site = Issuers({}, ae_titles={"US1": AeTitle(zone=ZoneInfo("America/New_York"))})
    sent = {"SourceApplicationEntityTitle": ("US1",), "StationAETitle": ("CT9",)}
    plain = {**headers(TimezoneOffsetFromUTC=None), **sent}
    told = {**headers(TimezoneOffsetFromUTC="+0530"), **sent}
    starts = [
        study_of(translated(type(headers())(h), issuers=site, zone=ZoneInfo("Europe/Vienna")))["started"]
        for h in (plain, told)
    ]
    assert starts == ["2024-03-01T09:15:00-05:00", "2024-03-01T09:15:00+05:30"]


def test_an_offset_that_is_none_is_remarked_and_taken_as_absent() -> None:
    result = translated(headers(TimezoneOffsetFromUTC="0100"))
    assert study_of(result)["started"] == "2024-03-01"
    assert "TimezoneOffsetFromUTC" in remarked(result)


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"AnatomicRegionSequence": [SCT_KNEE], "BodyPartExamined": "CHEST"}, "72696002"),
        ({"AnatomicRegionSequence": [SCT_KNEE, SCT_CHEST], "BodyPartExamined": "HEAD"}, "69536005"),
        ({"SharedFunctionalGroupsSequence": [anatomy(SCT_KNEE)], "BodyPartExamined": "CHEST"}, "72696002"),
        ({"PerFrameFunctionalGroupsSequence": [anatomy(SCT_KNEE)] * 3}, "72696002"),
        ({"PerFrameFunctionalGroupsSequence": [anatomy(SCT_KNEE), anatomy(SCT_CHEST)]}, None),
        ({"SegmentSequence": [item(AnatomicRegionSequence=[SCT_CHEST])] * 2}, "43799004"),
        ({"SegmentSequence": [item(AnatomicRegionSequence=[c]) for c in (SCT_CHEST, SCT_KNEE)]}, None),
        ({"BodyPartExamined": "C-SPINE"}, "122494005"),
        ({"BodyPartExamined": "Lumbar Spine"}, "122496007"),
        ({}, None),
    ],
)
def test_the_body_site_is_the_one_region_that_the_best_source_names(attributes: dict[str, Any], code: str) -> None:
    assert series_of(headers(**attributes)).get("bodySite", {}).get("code") == code


def test_a_defined_term_without_a_code_is_its_meaning_and_no_remark() -> None:
    result = translated(headers(BodyPartExamined="FETALHEART"))
    assert study_of(result)["series"][0]["bodySite"] == {"display": "Fetal heart"}
    assert remarked(result) == []


RIGHT, LEFT, BOTH = "24028007", "7771000", "51440002"


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Laterality": "R", "ImageLaterality": "L"}, RIGHT),
        ({"ImageLaterality": "B"}, BOTH),
        ({"SharedFunctionalGroupsSequence": [anatomy(side="L")]}, LEFT),
        ({"PerFrameFunctionalGroupsSequence": [anatomy(side="L"), anatomy(side="L")]}, LEFT),
        ({"PerFrameFunctionalGroupsSequence": [anatomy(side="L"), anatomy(side="R")]}, None),
        ({"SharedFunctionalGroupsSequence": [anatomy(side="U")], "MeasurementLaterality": "R"}, None),
        ({"MeasurementLaterality": "R"}, RIGHT),
        ({"AnatomicRegionSequence": [item(CodeValue="72696002", CodingSchemeDesignator="SCT", CodeMeaning="Knee",
           AnatomicRegionModifierSequence=[a_code("G-A101", "SRT", "Left")])]}, LEFT),
        ({}, None),
    ],
)  # fmt: skip
def test_the_side_is_what_the_best_source_says(attributes: dict[str, Any], code: str | None) -> None:
    assert series_of(headers(**attributes)).get("laterality", {}).get("code") == code


def test_images_of_both_sides_give_no_side() -> None:
    assert "laterality" not in series_of(*(headers(instance=i, ImageLaterality=s) for i, s in enumerate("LR")))


def test_a_side_that_is_none_is_remarked_under_its_own_name() -> None:
    result = translated(headers(ImageLaterality="X"))
    assert remarked(result) == ["ImageLaterality"]


@pytest.mark.parametrize(
    ("unmapped", "body", "procedure"),
    [
        (UnmappedCodes.TEXT, {"display": "TOE 3"}, [{"text": "Exam"}]),
        (UnmappedCodes.LEAVE_OUT, None, None),
        (
            UnmappedCodes.LOCAL,
            {"system": "http://h/codes/BodyPartExamined", "code": "TOE 3", "display": "TOE 3"},
            [
                {
                    "coding": [{"system": "http://h/codes/99%2FX", "code": "X1", "display": "Exam"}],
                    "text": "Exam",
                }
            ],
        ),
    ],
)
def test_a_site_decides_what_becomes_of_codes_without_a_system(
    unmapped: UnmappedCodes, body: dict[str, str] | None, procedure: list[dict[str, Any]] | None
) -> None:
    tables = replace(code_tables(), unmapped=unmapped, local_system="http://h/codes")
    one = headers(BodyPartExamined="TOE 3", ProcedureCodeSequence=[a_code("X1", "99/X", "Exam")])
    study = study_of(translated(one, tables=tables))
    assert study["series"][0].get("bodySite") == body
    assert study.get("procedureCode") == procedure


def test_an_object_may_say_the_uid_of_a_scheme() -> None:
    scheme = item(CodingSchemeDesignator="99HOSP", CodingSchemeUID="1.2.40.9")
    one = headers(CodingSchemeIdentificationSequence=[scheme], ProcedureCodeSequence=[a_code("X1", "99HOSP", "Ours")])
    (found,) = study_of(translated(one))["procedureCode"]
    assert found["coding"] == [{"system": "urn:oid:1.2.40.9", "code": "X1", "display": "Ours"}]


DOCUMENT = a_code("18748-4", "LN", "Diagnostic Imaging Report")


@pytest.mark.parametrize(
    ("attributes", "title"),
    [
        ({}, "ORIGINAL\\PRIMARY\\AXIAL"),
        ({"ImageType": None, "ConceptNameCodeSequence": [DOCUMENT]}, "Diagnostic Imaging Report"),
        ({"ImageType": None, "ContentLabel": "ARROWS"}, "ARROWS"),
        ({"ImageType": ["DERIVED", "PRIMARY"], "ContentLabel": "LUNG"}, "LUNG"),
        ({"ImageType": None, "DocumentTitle": "Letter", "ConceptNameCodeSequence": [DOCUMENT]}, "Letter"),
        ({"ImageType": None}, None),
    ],
)
def test_the_title_is_what_an_object_of_its_kind_is_called(attributes: dict[str, Any], title: str | None) -> None:
    assert series_of(headers(**attributes))["instance"][0].get("title") == title


def test_the_number_of_frames_is_an_extension_where_there_are_several() -> None:
    several, one = (series_of(headers(NumberOfFrames=n))["instance"][0] for n in (12, 1))
    assert several["extension"] == [{"url": NUMBER_OF_FRAMES, "valueUnsignedInt": 12}]
    assert "extension" not in one


@pytest.mark.parametrize("modality", ["SR", "KO", "PR", "SEG", "DOC", "REG", "RTSTRUCT", "RTDOSE", "RTPLAN", "OT"])
def test_what_is_no_image_is_listed_and_is_no_acquisition(modality: str) -> None:
    study = study_of(translated(headers(series=1), headers(series=2, Modality=modality)))
    assert [m["code"] for m in study["modality"]] == ["CT"]
    assert study["series"][1]["modality"]["code"] == modality


def test_a_retired_modality_keeps_its_code_without_display() -> None:
    study = study_of(translated(headers(Modality="DS")))
    assert study["modality"] == [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "DS"}]


def test_a_study_of_more_instances_than_are_listed_is_counted_in_full() -> None:
    result = translated(*(headers(instance=i) for i in (1, 2, 3)), maximum_instances=2)
    study = study_of(result)
    assert (study["numberOfInstances"], study["series"][0]["numberOfInstances"]) == (3, 3)
    assert "instance" not in study["series"][0]
    assert remarked(result) == ["SOPInstanceUID"]
    assert (
        "instance" in study_of(translated(headers(instance=1), headers(instance=2), maximum_instances=2))["series"][0]
    )
