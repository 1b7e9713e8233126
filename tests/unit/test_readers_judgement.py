"""What a reader's own report comes to as reviews of a result: by what it names, and by what it says of that."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.code_tables import code_tables
from bridge.findings.contract import read_result
from bridge.findings.judgement import ReadersReport, Said, kept_report, report_as_json, reviews_by
from bridge.findings.model import AiResult, Finding
from bridge.findings.names import finding_names, lesion_name, measurement_names, result_names
from bridge.findings.review import Decision, Reader, ReportStatus, Review, kept_review, review_as_json, standing
from tests.ai_results import DIAMETER, LUNG, NODULE, a_finding, a_full_finding, a_result

CYST = {"scheme": "SCT", "code": "65239001", "display": "Cyst of lung"}
LIVER = {"scheme": "SCT", "code": "10200004", "display": "Liver"}
LUNG_RADS = {"scheme": "RADLEX", "code": "RID50134", "display": "Lung-RADS"}
CLASS_2 = {"scheme": "RADLEX", "code": "RID50136", "display": "2"}
CLASS_4 = {"scheme": "RADLEX", "code": "RID50138", "display": "4A"}
READER, THEN = Reader("Leser, Lia"), datetime(2025, 12, 1, 12, tzinfo=UTC)
RESULT = result_names("run-1")


def the_result(*findings: dict[str, Any], **fields: Any) -> AiResult:
    return read_result(a_result(*findings, **fields), code_tables().coding_scheme)


def read(**fields: Any) -> Finding:
    """A finding as a reader gives it."""
    return the_result(a_finding(**fields)).findings[0]


def of(result: AiResult, n: int = 0) -> tuple[str, ...]:
    return tuple(sorted(finding_names("run-1", result.findings[n])))


def lesion(result: AiResult, n: int = 0) -> tuple[str, ...]:
    return (lesion_name("run-1", result.findings[n]),)


def reviews(result: AiResult, *said: Said, whole: bool = False, conclusion: str = "") -> tuple[Review, ...]:
    report = ReadersReport(READER, THEN, tuple(RESULT) if whole else (), said, conclusion)
    assert kept_report(report_as_json(report)) == report
    made = reviews_by(report, result, RESULT)
    assert tuple(kept_review(review_as_json(one)) for one in made) == made
    return made


def decisions(*made: Review) -> list[str]:
    return [one.decision.value for one in made]


def test_a_report_that_names_nothing_of_a_result_says_nothing_of_it() -> None:
    result = the_result()
    assert reviews(result) == ()
    assert reviews(result, Said(("urn:oid:1.2.3",), read(presence="absent"))) == ()


def test_who_refers_to_a_result_and_says_nothing_else_accepts_it() -> None:
    (accepted,) = reviews(the_result(), whole=True)
    assert (accepted.decision, accepted.reader, accepted.reviewed_at) == (Decision.ACCEPT, READER, THEN)


@pytest.mark.parametrize("name", [of, lesion], ids=["its Observation", "its lesion"])
def test_the_same_of_a_finding_accepts_it(name: Any) -> None:
    result = the_result(a_full_finding())
    alike = replace(result.findings[0], confidence=None, id="9")
    assert decisions(*reviews(result, Said(name(result), alike))) == ["accept"]


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ({"measurements": [{"code": DIAMETER, "value": 9, "unit": "mm"}]}, "measurements"),
        ({"location": {"body_site": LIVER}}, "location"),
        ({"location": {"body_site": LUNG, "laterality": "left"}}, "location"),
        ({"presence": "undetermined"}, "presence"),
        ({"presence": None, "measurements": [{"code": DIAMETER, "value": 9, "unit": "mm"}]}, "measurements"),
    ],
)
def test_something_else_of_a_finding_amends_it_by_what_the_reader_says(said: dict[str, Any], changed: str) -> None:
    result = the_result(a_full_finding())
    amended, accepted = reviews(result, Said(lesion(result), read(**said)))
    assert decisions(amended, accepted) == ["amend", "accept"]
    (finding,) = amended.findings
    before, theirs = result.findings[0], read(**said)
    assert getattr(finding, changed) != getattr(before, changed)
    if changed != "location":
        assert getattr(finding, changed) == getattr(theirs, changed)
    else:
        assert (finding.location.body_site, finding.location.laterality) == (
            theirs.location.body_site,
            theirs.location.laterality,
        )
        assert finding.location.planar_regions == before.location.planar_regions
    kept = {"confidence": None} if changed == "presence" else {}
    assert replace(finding, **{changed: getattr(before, changed)} | kept) == replace(before, **kept)


def test_another_class_or_score_amends() -> None:
    rated = the_result(a_finding(code=LUNG_RADS, presence=None, classification=CLASS_4))
    assert decisions(*reviews(rated, Said(of(rated), rated.findings[0]))) == ["accept"]
    theirs = read(code=LUNG_RADS, presence=None, classification=CLASS_2)
    amended, _ = reviews(rated, Said(of(rated), theirs))
    assert amended.findings[0].classification == theirs.classification
    scored = the_result(a_finding(code=LUNG_RADS, presence=None, score={"value": 3}))
    measured = read(code=LUNG_RADS, presence=None, measurements=[{"code": LUNG_RADS, "value": 4, "unit": "1"}])
    amended, _ = reviews(scored, Said(of(scored), measured))
    assert amended.findings[0].score is not None
    assert amended.findings[0].score.value == 4


def test_a_region_that_is_drawn_elsewhere_amends_those_of_its_kind_alone() -> None:
    result = the_result(a_full_finding())
    there = a_full_finding()["location"]
    moved = {"planar_regions": [there["planar_regions"][0] | {"points": [[1, 2], [3, 4]]}]}
    amended, _ = reviews(result, Said(lesion(result), read(location=moved)))
    where = amended.findings[0].location
    assert where.planar_regions[0].points == ((1, 2), (3, 4))
    assert (where.spatial_regions, where.segments, where.body_site) == (
        result.findings[0].location.spatial_regions,
        result.findings[0].location.segments,
        result.findings[0].location.body_site,
    )


def test_a_number_that_dicom_wrote_shorter_is_the_same() -> None:
    result = the_result(a_finding(measurements=[{"code": DIAMETER, "value": 1 / 3, "unit": "mm"}]))
    theirs = read(measurements=[{"code": DIAMETER, "value": 0.33333333, "unit": "mm"}])
    assert decisions(*reviews(result, Said(lesion(result), theirs))) == ["accept"]


def test_what_only_the_reader_measured_is_the_readers_own() -> None:
    result = the_result()
    theirs = read(measurements=[{"code": DIAMETER, "value": 9, "unit": "mm"}], text="A round opacity.")
    assert decisions(*reviews(result, Said(lesion(result), theirs))) == ["accept"]


@pytest.mark.parametrize("name", [of, lesion], ids=["its Observation", "its lesion"])
def test_the_only_finding_called_absent_rejects_the_result(name: Any) -> None:
    result = the_result(a_full_finding())
    for whole in (False, True):
        made = reviews(result, Said(name(result), read(presence="absent")), whole=whole)
        assert decisions(*made) == ["reject"]


def test_what_the_program_calls_absent_too_is_accepted() -> None:
    result = the_result(a_finding(presence="absent"))
    assert decisions(*reviews(result, Said(of(result), read(presence="absent")))) == ["accept"]
    amended, _ = reviews(result, Said(of(result), read(presence="present")))
    assert amended.findings[0].presence == "present"


def three() -> AiResult:
    rated = a_finding(id="3", code=LUNG_RADS, presence=None, classification=CLASS_4)
    return the_result(a_full_finding(), a_finding(id="2", tracking_uid="1.2.5"), rated, conclusion="Three findings.")


def test_one_of_three_that_is_refused_amends_the_result() -> None:
    result = three()
    amended, accepted = reviews(
        result, Said(lesion(result), read(presence="absent")), whole=True, conclusion="Two of the three."
    )
    assert decisions(amended, accepted) == ["amend", "accept"]
    assert [(f.id, f.presence) for f in amended.findings] == [("1", "absent")]
    assert (amended.refused, amended.conclusion) == ((), "Two of the three.")
    after = standing(result, (amended, accepted))
    assert (after.status, after.signed_by) == (ReportStatus.FINAL, READER)
    assert after.result.findings[1:] == result.findings[1:]
    before = Review(Decision.ACCEPT, Reader("Other"), datetime(2025, 12, 1, 9, tzinfo=UTC))
    assert standing(result, (before, amended, accepted)).status is ReportStatus.AMENDED


def test_what_is_taken_back_as_error_or_was_rated_is_refused_and_not_called_absent() -> None:
    result = three()
    (amended,) = reviews(result, Said(of(result, 1), in_error=True, same=True))
    assert (amended.findings, amended.refused, amended.conclusion) == ((), ("2",), "")
    (amended,) = reviews(result, Said(of(result, 2), read(code=LUNG_RADS, presence="absent")))
    assert (amended.findings, amended.refused) == ((), ("3",))
    after = standing(result, (amended,))
    assert after.status is ReportStatus.PRELIMINARY
    assert after.refused == {"3"}


def test_all_findings_refused_one_by_one_reject_the_result() -> None:
    result = three()
    said = [
        Said(lesion(result), read(presence="absent")),
        Said(of(result, 1), in_error=True),
        Said(of(result, 2), read(code=LUNG_RADS, presence="absent")),
    ]
    assert decisions(*reviews(result, *said)) == ["reject"]
    assert decisions(*reviews(result, *said[:2])) == ["amend"]


def test_to_agree_with_some_findings_alone_accepts_nothing() -> None:
    result = three()
    assert reviews(result, Said(of(result))) == ()
    every = [Said(of(result, n)) for n in range(3)]
    assert decisions(*reviews(result, *every)) == ["accept"]


def test_a_report_that_contradicts_itself_decides_nothing() -> None:
    result = the_result()
    said = Said(of(result), read(presence="absent")), Said(lesion(result), read())
    assert reviews(result, *said, whole=True) == ()


def test_a_lesion_that_is_called_something_else_is_amended() -> None:
    result = the_result(a_full_finding())
    amended, _ = reviews(result, Said(lesion(result), read(code=CYST)))
    assert amended.findings[0].code.code == CYST["code"]
    assert amended.findings[0].confidence is None
    assert reviews(result, Said(lesion(result), read(code=CYST, presence="absent"))) == ()


def test_what_a_reader_adds_to_a_lesion_changes_no_finding() -> None:
    result = the_result(a_full_finding())
    rated = read(code=LUNG_RADS, presence=None, classification=CLASS_2)
    said = Said(lesion(result), read()), Said(lesion(result), rated)
    assert decisions(*reviews(result, *said)) == ["accept"]
    derived = Said(of(result), read(code=CYST))
    assert reviews(result, derived) == ()


def test_what_is_said_of_a_lesion_goes_with_it() -> None:
    uid = {"tracking_uid": "1.2.5"}
    spiculated = a_finding(id="1.1", code=LUNG_RADS, presence=None, classification=CLASS_4, **uid)
    result = the_result(a_finding(**uid), spiculated)
    assert decisions(*reviews(result, Said(("urn:oid:1.2.5",), read(presence="absent")))) == ["reject"]
    amended, *_ = reviews(result, Said(("urn:oid:1.2.5",), read(code=LUNG_RADS, presence=None, classification=CLASS_2)))
    assert [f.id for f in amended.findings] == ["1.1"]


def test_a_measurement_can_be_named_by_itself() -> None:
    result = the_result(a_full_finding())
    name = tuple(measurement_names("run-1", result.findings[0]))
    theirs = read(code=DIAMETER, presence=None, measurements=[{"code": DIAMETER, "value": 7, "unit": "mm"}])
    amended, _ = reviews(result, Said(name, theirs))
    assert amended.findings[0].measurements[0].value == 7
    assert amended.findings[0].code.code == NODULE["code"]
    assert reviews(result, Said(name, in_error=True)) == ()
