from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import orjson
import pytest

from bridge.errors import InvalidQuery
from cohort import timeline as module
from cohort.sandbox import run
from cohort.timeline import Event, Kind, Timeline, timeline
from cohort.timeline_plot import drawn
from tests.findings import finding
from tests.hospital_lake import HospitalLake, resource_line

MRN = "MRN000001"


def test_it_holds_what_the_facts_say_in_order(hospital: HospitalLake) -> None:
    found, facts = timeline(hospital.generation, MRN, run), hospital.hospital
    kinds = {kind: [e for e in found.events if e.kind is kind] for kind in Kind}
    assert {e.study_instance_uid for e in kinds[Kind.STUDY]} == {
        s.uid for s in facts.studies if s.mrn == MRN and s.archived
    }
    assert {e.id for e in kinds[Kind.CONDITION]} == {
        c.id for c in facts.conditions if c.mrn == MRN and c.verification != "entered-in-error"
    }
    assert {e.id for e in kinds[Kind.MEDICATION]} == {
        m.id for m in facts.medications if m.mrn == MRN and m.status != "entered-in-error"
    }
    assert len(kinds[Kind.REPORT]) == sum(bool(s.report) for s in facts.studies if s.mrn == MRN)
    days = [e.day for e in found.events]
    assert days == sorted(days, key=str)
    assert not found.truncated and found.patient_id == "pat-mrn000001"


def test_of_the_observations_only_those_that_matter_to_imaging(hospital: HospitalLake) -> None:
    mrns = [p.mrn for p in hospital.hospital.patients[:4]]
    codes = {
        e.title.partition(" ")[0]
        for mrn in mrns
        for e in timeline(hospital.generation, mrn, run).events
        if e.kind is Kind.OBSERVATION
    }
    assert codes == {"Body", "Creatinine"}


def test_findings_by_ai_stand_among_the_rest(hospital: HospitalLake, tmp_path: Path) -> None:
    study = next(s.uid for s in hospital.hospital.studies if s.mrn == MRN and s.archived)
    copy = hospital.copy(tmp_path)
    copy.put(resource_line(finding("f", "somebody-else", study)))
    (event,) = [e for e in timeline(copy.generation, MRN, run).events if e.kind is Kind.FINDING]
    assert event == Event(
        Kind.FINDING, "2025-12-01", "Solitary nodule of lung", "preliminary", "8.5 mm, by AI, Nodule Finder 2.1",
        "2025-12-01T10:00:00+00:00", None, "f", study,
    )  # fmt: skip


def test_a_patient_is_meant_by_id_or_by_identifier(hospital: HospitalLake, tmp_path: Path) -> None:
    by_id = timeline(hospital.generation, "pat-mrn000001", run)
    assert by_id == timeline(hospital.generation, MRN, run)
    with pytest.raises(InvalidQuery, match="no such patient"):
        timeline(hospital.generation, "nobody' OR true --", run)
    with pytest.raises(InvalidQuery, match="200 characters"):
        timeline(hospital.generation, "x" * 201, run)
    copy = hospital.copy(tmp_path)
    copy.put(resource_line({"resourceType": "Patient", "id": "two", "identifier": [{"system": "s", "value": MRN}]}))
    with pytest.raises(InvalidQuery, match="more than one patient"):
        timeline(copy.generation, MRN, run)


def test_what_is_undated_stands_last(hospital: HospitalLake, tmp_path: Path) -> None:
    copy = hospital.copy(tmp_path)
    subject = {"reference": "Patient/pat-mrn000001"}
    copy.put(resource_line({"resourceType": "Procedure", "id": "undated", "status": "completed", "subject": subject}))
    assert timeline(copy.generation, MRN, run).events[-1].id == "undated"


def test_more_events_than_are_shown_is_said(hospital: HospitalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = timeline(hospital.generation, MRN, run)
    monkeypatch.setattr(module, "MOST_EVENTS", 3)
    cut = timeline(hospital.generation, MRN, run)
    assert cut.truncated and cut.events == whole.events[:3]


def test_json_holds_every_field(hospital: HospitalLake) -> None:
    told = orjson.loads(timeline(hospital.generation, MRN, run).as_json())
    assert told["generation"] == "g000001"
    assert set(told["events"][0]) == set(Event.__dataclass_fields__)


def test_it_is_drawn_as_png_and_svg(hospital: HospitalLake) -> None:
    found = timeline(hospital.generation, MRN, run)
    assert drawn(found).startswith(b"\x89PNG")
    svg = ElementTree.fromstring(drawn(found, "svg"))
    assert svg.tag.endswith("svg")


HOSTILE = (
    Event(Kind.CONDITION, "2020-01-01", "$\\frac{1}{0}$ <script>", until="2019-01-01"),
    Event(Kind.CONDITION, "2020-01-01", "x" * 5000, until="2024-01-01"),
    Event(Kind.FINDING, "0001-01-01", "first day there is", detail="-, by AI"),
    Event(Kind.REPORT, "9999-12-31", "last day there is"),
    Event(Kind.STUDY, None, "undated"),
)


@pytest.mark.parametrize(
    "events", [(), HOSTILE[:2], HOSTILE[4:], HOSTILE, tuple(replace(HOSTILE[0], id=str(n)) for n in range(3000))]
)
def test_whatever_the_events_are_it_is_drawn(events: tuple[Event, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = drawn(Timeline("$p$", "g1", events, False), "svg")
    assert b"<script>" not in picture
    assert len(picture) < 20_000_000
