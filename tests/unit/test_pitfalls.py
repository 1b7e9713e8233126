"""What mappers from DICOM to FHIR fall into: known pitfalls, and defects found in DICOM Cast and in dicom2fhir.

One test for each; those of delivery are tested with the sinks.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from pydicom import dcmread

from bridge.config import FhirServerSink
from bridge.errors import RejectedInput
from bridge.sources.part10 import read_headers
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers
from bridge.translate.instances import NUMBER_OF_FRAMES
from bridge.translate.wanted import WANTED
from tests.builders import STUDY, a_dataset, a_translator, as_file, headers
from tests.studies import a_code, item, patient_of, remarked, series_of, study_of, translated

ROOT = Path(__file__).parents[2]


def changed(**values: Any) -> Headers:
    """The headers of one instance with values as an archive may have them, unchecked."""
    plain = headers().as_json() | {k: v if isinstance(v, list) else [v] for k, v in values.items()}
    return Headers.from_json(plain)


def test_pitfall_01_multi_frame_images_tell_their_frames_side_region_and_date() -> None:
    region = item(AnatomicRegionSequence=[a_code("72696002", "SCT", "Knee")], FrameLaterality="R")
    shared = item(FrameAnatomySequence=[region])
    frame = item(FrameContentSequence=[item(FrameAcquisitionDateTime="20240301100000")])
    one = headers(
        NumberOfFrames=2,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[frame, frame],
    )
    found = series_of(one)
    assert found["instance"][0]["extension"] == [{"url": NUMBER_OF_FRAMES, "valueUnsignedInt": 2}]
    assert (found["bodySite"]["display"], found["laterality"]["display"]) == ("Knee", "Right")
    assert found["started"] == "2024-03-01T10:00:00+01:00"


@pytest.mark.parametrize("uid", ["", "1.2." + "3" * 61, "1..2", "abc"])
def test_pitfall_02_an_instance_without_a_usable_uid_is_rejected_and_the_rest_goes_on(uid: str) -> None:
    bad = Headers({k: v for k, v in changed(SOPInstanceUID=uid or "x").items() if uid or k != "SOPInstanceUID"})
    result = translated(headers(instance=2), bad)
    assert len(result.rejected) == 1
    assert study_of(result)["numberOfInstances"] == 1


def test_pitfall_02_padding_and_leading_zeros_of_a_uid_are_accepted() -> None:
    plain = headers().as_json()
    tags = {"SOPInstanceUID": {"Value": ["1.2.03\0"]}}
    assert Headers.from_dicom_json(tags).text("SOPInstanceUID") == "1.2.03"
    assert series_of(Headers.from_json(plain | {"SOPInstanceUID": ["1.2.03"]}))["instance"][0]["uid"] == "1.2.03"


def test_pitfall_02_a_sop_instance_uid_that_occurs_twice_is_one_instance_whatever_the_order() -> None:
    one, two = headers(series=1, SOPInstanceUID="1.2.3"), headers(series=2, SOPInstanceUID="1.2.3")
    first, second = translated(one, two), translated(two, one)
    assert study_of(first) == study_of(second)
    assert study_of(first)["numberOfInstances"] == 1
    assert "SOPInstanceUID" in remarked(first)


def test_pitfall_03_modalities_are_those_of_the_series_that_are_held_now() -> None:
    ct, mr, none = headers(series=1), headers(series=2, Modality="MR"), headers(series=3, Modality=None)
    assert [m["code"] for m in study_of(translated(ct, mr, none))["modality"]] == ["CT", "MR"]
    assert [m["code"] for m in study_of(translated(ct))["modality"]] == ["CT"]
    assert "ModalitiesInStudy" not in WANTED


@pytest.mark.parametrize(
    ("day", "clock", "started"),
    [
        ("20240301", "", "2024-03-01"),
        ("20240301", "09", "2024-03-01T09:00:00+01:00"),
        ("20240301", "0915", "2024-03-01T09:15:00+01:00"),
        ("20240301", "11:20:", "2024-03-01T11:20:00+01:00"),
        ("20240301", "091500.250", "2024-03-01T09:15:00.25+01:00"),
        ("20240301", "235960", "2024-03-01T23:59:60+01:00"),
        ("20240301", "246060", "2024-03-01"),
        ("1986.04.22", "", "1986-04-22"),
        ("202403", "", "2024-03"),
        ("20240301-20240302", "", None),
        ("today", "0915", None),
    ],
)
def test_pitfall_04_dates_and_times_are_kept_as_far_as_they_are_certain(
    day: str, clock: str, started: str | None
) -> None:
    assert study_of(translated(changed(StudyDate=day, StudyTime=clock))).get("started") == started


def test_pitfall_05_the_offset_of_the_instance_then_the_sites_zone_and_never_utc() -> None:
    none = changed(TimezoneOffsetFromUTC=[])
    none = Headers({k: v for k, v in none.items() if v})
    assert study_of(translated(none))["started"] == "2024-03-01"
    assert study_of(translated(none, zone=ZoneInfo("Asia/Tokyo")))["started"].endswith("+09:00")
    east = headers(series=2, SeriesDate="20240301", SeriesTime="09", TimezoneOffsetFromUTC="+0530")
    west = headers(series=1, SeriesDate="20240301", SeriesTime="09", TimezoneOffsetFromUTC="-0800")
    starts = [s["started"][-6:] for s in study_of(translated(east, west))["series"]]
    assert starts == ["-08:00", "+05:30"]


@pytest.mark.parametrize(
    ("name", "families", "givens"),
    [
        ("Adams^John Robert Quincy^^Rev.^B.A. M.Div.", ["Adams"], [["John Robert Quincy"]]),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["Yamada", "山田", "やまだ"], [["Tarou"], ["太郎"], ["たろう"]]),
        ("=山田^太郎", ["山田"], [["太郎"]]),
        ("Madonna", ["Madonna"], [None]),
        ("Wang^^^^", ["Wang"], [None]),
    ],
)
def test_pitfall_06_names_keep_their_groups_and_parts(name: str, families: list[str], givens: list[Any]) -> None:
    found = patient_of(translated(headers(PatientName=name)))["name"]
    assert [n["family"] for n in found] == families
    assert [n.get("given") for n in found] == givens


@pytest.mark.parametrize(
    ("charset", "encoding", "name"),
    [
        ("ISO_IR 100", "latin-1", "Müller^Jörg"),
        ("ISO_IR 192", "utf-8", "Müller^Jörg"),
        ("GB18030", "gb18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "iso2022_jp", "Yamada^Tarou=山田^太郎"),
    ],
)
def test_pitfall_07_names_are_decoded_before_they_are_divided(
    tmp_path: Path, charset: Any, encoding: str, name: str
) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(as_file(a_dataset(SpecificCharacterSet=charset, PatientName=name)))
    assert encoding == "utf-8" or name.encode("utf-8") not in path.read_bytes()
    found = patient_of(translated(read_headers(path)))["name"]
    assert "=".join("^".join([n["family"], *n["given"]]) for n in found) == name


def test_pitfall_08_an_id_counts_with_its_issuer_and_one_of_nobody_not_at_all() -> None:
    site = Issuers({}, unknown_patient_ids=frozenset({"anon"}))
    keys = {
        translated(headers(PatientID=" P1 ")).patient_key,
        translated(headers(PatientID="P1")).patient_key,
        translated(headers(PatientID="p1")).patient_key,
        translated(headers(IssuerOfPatientID="A")).patient_key,
        translated(headers(IssuerOfPatientID="B")).patient_key,
        translated(headers(PatientID="ANON"), issuers=site).patient_key,
        translated(headers(PatientID="")).patient_key,
    }
    assert len(keys) == 5


def test_pitfall_09_a_patient_id_that_changes_moves_the_study_and_does_not_copy_it() -> None:
    before, after = translated(headers(PatientID="OLD")), translated(headers(PatientID="NEW"))
    assert study_of(before)["id"] == study_of(after)["id"]
    assert study_of(after)["subject"]["reference"] == f"Patient/{after.patient_key}"
    assert before.patient_key != after.patient_key


def test_pitfall_09_an_instance_that_moved_to_another_study_is_no_longer_in_this_one() -> None:
    moved = headers(study=STUDY + ".9", instance=2)
    result = translated(headers(), moved)
    assert study_of(result)["numberOfInstances"] == 1
    assert result.rejected[0].error.startswith("StudyInstanceUID")


def test_pitfall_10_a_study_that_is_deleted_stays_and_claims_nothing() -> None:
    (gone,) = a_translator().withdraw(STUDY, translated(headers(), endpoints={"a": "http://a"}).resources).resources
    assert (gone["status"], gone["numberOfInstances"]) == ("entered-in-error", 0)
    assert "endpoint" not in gone
    assert study_of(translated(headers()))["id"] == gone["id"], "and is the same when it comes again"


def test_pitfall_11_what_comes_late_or_twice_or_in_another_order_ends_in_the_same_bytes() -> None:
    instances = [headers(series=s, instance=i) for s in (1, 2) for i in (1, 2, 3)]
    at_once = orjson.dumps(translated(*instances).resources)
    assert orjson.dumps(translated(*reversed(instances)).resources) == at_once
    assert orjson.dumps(a_translator().translate(STUDY, {"b": instances, "a": instances}).resources) == at_once


def test_pitfall_12_of_values_that_conflict_the_most_common_is_taken_and_remarked() -> None:
    instances = [headers(instance=i, StudyDescription=d) for i, d in enumerate("BAABB")]
    result = translated(*instances)
    assert study_of(result)["description"] == "B"
    assert remarked(result) == ["StudyDescription"]
    tie = [headers(instance=i, StudyDescription=d) for i, d in enumerate("BA")]
    assert study_of(translated(*tie)) == study_of(translated(*reversed(tie)))


def test_pitfall_13_every_accession_number_is_an_identifier_and_an_order() -> None:
    issuer = item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
    other = item(AccessionNumber="B2", IssuerOfAccessionNumberSequence=[issuer])
    study = study_of(translated(headers(RequestAttributesSequence=[other])))
    assert [i["value"] for i in study["identifier"][1:]] == ["A1", "B2"]
    assert [(r["type"], r["identifier"].get("system")) for r in study["basedOn"]] == [
        ("ServiceRequest", None),
        ("ServiceRequest", "urn:oid:1.2.3"),
    ]


@pytest.mark.parametrize(
    ("code", "coding"),
    [
        (a_code("T-D3000", "SRT", "Chest"), ("http://snomed.info/sct", "51185008")),
        (a_code("24627-2", "LN", "CT Chest"), ("http://loinc.org", "24627-2")),
        (a_code("RPID16", "RADLEX", "CT Chest"), ("http://radlex.org", "RPID16")),
        (item(LongCodeValue="X" * 20, CodingSchemeDesignator="SCT", CodeMeaning="Long"),
         ("http://snomed.info/sct", "X" * 20)),
        (item(URNCodeValue="urn:lex:us:x", CodingSchemeDesignator="UMLS", CodeMeaning="URN"),
         ("http://terminology.hl7.org/CodeSystem/umls", "urn:lex:us:x")),
        (a_code("1", "99LOCAL", "Ours"), None),
    ],
)  # fmt: skip
def test_pitfall_14_a_code_has_the_system_of_its_scheme_or_none_is_invented(code: Any, coding: Any) -> None:
    (found,) = study_of(translated(headers(ProcedureCodeSequence=[code])))["procedureCode"]
    (only,) = found.get("coding", [{}])
    assert (only.get("system"), only.get("code")) == (coding or (None, None))
    assert found["text"]


def test_pitfall_15_a_very_large_study_is_counted_but_not_listed_in_full() -> None:
    one = headers().as_json()
    many = [Headers.from_json(one | {"SOPInstanceUID": [f"{STUDY}.1.{i}"]}) for i in range(1, 10_002)]
    study = study_of(translated(*many))
    assert (study["numberOfInstances"], study["series"][0]["numberOfInstances"]) == (10_001, 10_001)
    assert "instance" not in study["series"][0]
    assert len(orjson.dumps(study)) < 10_000


@pytest.mark.parametrize("modality", ["SR", "PR", "KO", "SEG", "DOC", "REG", "RTPLAN"])
def test_pitfall_16_objects_that_are_no_images_are_listed_and_do_not_define_the_study(modality: str) -> None:
    study = study_of(translated(headers(), headers(series=2, Modality=modality)))
    assert [m["code"] for m in study["modality"]] == ["CT"]
    assert study["numberOfSeries"] == 2


@pytest.mark.parametrize(
    ("number", "kept"),
    [("7", 7), (7.0, 7), ("1.0E1", 10), ("2147483647", 2147483647), ("2147483648", None), (-1, None), ("1.5", None)],
)
def test_pitfall_17_numbers_in_any_form_are_taken_if_fhir_can_hold_them(number: Any, kept: int | None) -> None:
    told = Headers.from_dicom_json({"00200013": {"vr": "IS", "Value": [number]}})
    one = Headers({**headers(), **told})
    assert series_of(one)["instance"][0].get("number") == kept


def test_pitfall_18_values_are_carried_as_they_are() -> None:
    value = "A,B|C$D&E#%é"
    study = translated(headers(PatientID=value, AccessionNumber=value))
    assert patient_of(study)["identifier"][0]["value"] == value
    assert study_of(study)["identifier"][1]["value"] == value


def test_pitfall_21_a_structured_report_is_listed_by_what_it_is_and_its_retired_codes_are_translated() -> None:
    title = a_code("126000", "DCM", "Imaging Measurement Report")
    one = headers(
        Modality="SR",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33",
        ImageType=None,
        ConceptNameCodeSequence=[title],
        AnatomicRegionSequence=[a_code("T-28000", "SRT", "Lung")],
    )
    found = series_of(one)
    assert found["instance"][0]["title"] == "Imaging Measurement Report"
    assert found["bodySite"] == {"system": "http://snomed.info/sct", "code": "39607008", "display": "Lung"}


def test_pitfall_22_no_value_stands_in_a_remark_or_an_error() -> None:
    secret = "S3CRET"
    keywords = ("StudyDate", "StudyTime", "PatientSex", "PatientBirthDate", "SeriesNumber", "BodyPartExamined")
    result = translated(changed(**dict.fromkeys((*keywords, "Laterality", "TimezoneOffsetFromUTC"), secret)))
    assert len(result.remarks) >= 8
    assert secret not in repr(result.remarks)
    with pytest.raises(RejectedInput) as caught:
        translated(headers(PatientID=secret), headers(instance=2, PatientID=secret + "2"))
    assert secret not in str(caught.value)
    rejected = translated(headers(), changed(SOPInstanceUID="1.2", SeriesInstanceUID=secret)).rejected
    assert secret not in rejected[0].error


def test_pitfall_23_an_archive_that_answers_no_optional_key_still_gives_a_study() -> None:
    keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    result = translated(Headers({k: headers()[k] for k in keys}))
    assert study_of(result)["numberOfInstances"] == 1
    assert study_of(result)["series"][0]["modality"]["code"] == "OT"


def test_pitfall_24_a_sop_class_is_a_urn_of_its_uid_and_uids_of_series_and_instance_are_bare() -> None:
    found = series_of(headers())
    assert found["uid"] == f"{STUDY}.1"
    assert found["instance"][0]["uid"] == f"{STUDY}.1.1"
    assert found["instance"][0]["sopClass"] == {
        "system": "urn:ietf:rfc:3986",
        "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2",
    }


def test_pitfall_25_the_fhir_models_that_judge_our_resources_are_those_that_are_pinned() -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    (pinned,) = re.findall(r"^fhir-resources==(\S+)", lock, re.M)
    assert version("fhir.resources") == pinned


def test_cast_02_modalities_need_no_attribute_that_only_queries_have() -> None:
    assert [m["code"] for m in study_of(translated(headers()))["modality"]] == ["CT"]


def test_cast_04_deleting_an_instance_takes_nothing_else() -> None:
    two = study_of(translated(headers(instance=1), headers(instance=2)))
    one = study_of(translated(headers(instance=2)))
    assert one["series"][0]["instance"] == two["series"][0]["instance"][1:]


def test_cast_07_the_subject_follows_the_archive() -> None:
    assert (
        study_of(translated(headers(PatientID="A")))["subject"]
        != study_of(translated(headers(PatientID="B")))["subject"]
    )


def test_cast_08_the_records_patient_is_not_written_unless_the_site_wants_it() -> None:
    assert FhirServerSink(kind="fhir_server", name="ehr", url="http://ehr.example").patients == "match"


def test_cast_11_a_study_with_a_date_alone_has_it_and_no_zone_is_claimed() -> None:
    assert study_of(translated(headers(StudyTime=None)))["started"] == "2024-03-01"
    assert study_of(translated(headers(TimezoneOffsetFromUTC=None)))["started"] == "2024-03-01"


def test_cast_12_the_groups_of_a_name_are_names_of_their_own() -> None:
    found = patient_of(translated(headers(PatientName="Hong^Gildong=洪^吉洞=홍^길동")))["name"]
    codes = [n["extension"][0]["valueCode"] for n in found]
    assert list(zip(codes, [n["text"] for n in found], strict=True)) == [
        ("ABC", "Gildong Hong"),
        ("IDE", "洪 吉洞"),
        ("SYL", "홍 길동"),
    ]


def test_cast_13_description_sop_class_and_accession_stand_where_they_belong() -> None:
    study = study_of(translated(headers(), issuers=Issuers({}, accession_system="http://h/acc")))
    assert study["description"] == "CT chest"
    assert "note" not in study
    assert study["series"][0]["instance"][0]["sopClass"]["system"] == "urn:ietf:rfc:3986"
    assert study["identifier"][1]["system"] == "http://h/acc"


@pytest.mark.parametrize("value", ["", None])
def test_cast_15_a_study_without_patient_id_is_a_study_of_its_own_patient(value: str | None) -> None:
    result = translated(headers(PatientID=value))
    assert study_of(result)["subject"]["reference"] == f"Patient/{result.patient_key}"
    assert "identifier" not in patient_of(result)


def test_dicom2fhir_names_from_dicom_json_are_names() -> None:
    tags = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane", "Ideographic": "山田^花子"}]}}
    found = patient_of(translated(Headers({**headers(), **Headers.from_dicom_json(tags)})))
    assert [n["family"] for n in found["name"]] == ["Doe", "山田"]


def test_dicom2fhir_patients_without_id_or_with_one_from_two_issuers_share_nothing() -> None:
    nobody = {
        a_translator().translate(u, {"a": (headers(study=u, PatientID=None),)}).patient_key for u in ("1.2", "1.3")
    }
    issued = {translated(headers(IssuerOfPatientID=i)).patient_key for i in ("A", "B")}
    assert len(nobody | issued) == 4


def test_dicom2fhir_the_equipment_is_the_same_each_time() -> None:
    one = headers(ManufacturerModelName="X1")
    assert series_of(one)["performer"] == series_of(one)["performer"]
    assert series_of(one)["performer"][0]["actor"]["display"] == "Fictive Imaging X1"


@pytest.mark.parametrize("keyword", ["Modality", "SeriesInstanceUID", "SOPInstanceUID", "StudyTime"])
def test_dicom2fhir_an_attribute_that_is_missing_stops_nothing(keyword: str) -> None:
    poor = Headers({k: v for k, v in headers(instance=2).items() if k != keyword})
    assert study_of(translated(headers(instance=1), poor))["numberOfInstances"] in (1, 2)


@pytest.mark.parametrize(("clock", "ends"), [("1011", "T10:11:00+01:00"), ("11:20:", "T11:20:00+01:00")])
def test_dicom2fhir_a_short_time_is_not_midnight(clock: str, ends: str) -> None:
    assert study_of(translated(changed(StudyTime=clock)))["started"].endswith(ends)


def test_dicom2fhir_a_sop_instance_uid_given_twice_is_no_error() -> None:
    assert study_of(translated(headers(), headers()))["numberOfInstances"] == 1


def test_dicom2fhir_studies_and_patients_are_never_mixed() -> None:
    assert study_of(translated(headers(), headers(study="1.2.3")))["numberOfInstances"] == 1
    with pytest.raises(RejectedInput, match="different patients"):
        translated(headers(), headers(instance=2, PatientID="P2"))


def test_dicom2fhir_the_offset_counts() -> None:
    assert study_of(translated(headers(TimezoneOffsetFromUTC="-0330")))["started"].endswith("-03:30")


def test_dicom2fhir_a_reason_sequence_is_a_reason() -> None:
    reason = a_code("233604007", "SCT", "Pneumonia")
    one = headers(ReasonForRequestedProcedureCodeSequence=[reason])
    assert study_of(translated(one))["reasonCode"][0]["coding"][0]["code"] == "233604007"


def test_dicom2fhir_frames_are_told() -> None:
    read = dcmread(BytesIO(as_file(a_dataset(NumberOfFrames=30))))
    assert series_of(Headers.from_dataset(read))["instance"][0]["extension"][0]["valueUnsignedInt"] == 30
