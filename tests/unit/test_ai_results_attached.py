"""AI results through the whole pipeline: kept, attached to their study, delivered like it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.code_tables import code_tables
from bridge.findings.contract import as_json, read_result
from bridge.findings.report import report_id
from bridge.findings.review import review_as_json
from bridge.model import KeptResult, StoredResource
from bridge.sinks.lake import LakeSink
from bridge.state import State
from bridge.translate.meta import with_meta
from cohort.lake import Lake
from cohort.sandbox import run_sql
from tests.ai_results import a_finding, a_full_finding, a_result, an_image
from tests.archive_fake import FakeSink
from tests.builders import STUDY, headers
from tests.delivering import Delivery, counted, dangling
from tests.fhir_fake import FhirFake
from tests.unit.test_ai_result_fhir import a_review
from tests.unit.test_sync import Rig
from tests.validity import told_wrong

TYPES = ("Patient", "ImagingStudy", "Endpoint", "Device", "Observation", "DiagnosticReport", "Provenance")
R5_TYPES = (*TYPES, "ImagingSelection", "BodyStructure")
REPORT = report_id("run-1")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield state
    state.close()


def a_kept(item: dict[str, Any]) -> KeptResult:
    result = read_result(item, code_tables().coding_scheme)
    return KeptResult(result.run_id, result.study_instance_uid, as_json(result))


def keep(rig: Rig, item: dict[str, Any]) -> bool:
    return rig.state.keep_result(a_kept(item), rig.now, 3, 60)


def review(rig: Rig, decision: str, **fields: Any) -> bool:
    result = rig.state.ai_result("run-1")
    assert result is not None
    return rig.state.add_review(result, review_as_json(a_review(decision, **fields)), rig.now)


def report(rig: Rig, version: int | None = None) -> StoredResource | None:
    return rig.state.read_resource("DiagnosticReport", REPORT, version)


def status(rig: Rig) -> tuple[int, str]:
    found = report(rig)
    assert found is not None
    assert found.content is not None
    return found.version, found.content["status"]


def kinds(rig: Rig) -> list[str]:
    return [r.resource_type for r in rig.state.study_resources(STUDY)]


def test_a_result_waits_for_its_study(state: State) -> None:
    rig = Rig(state)
    assert keep(rig, a_result(a_full_finding()))
    rig.run()
    assert kinds(rig) == []
    assert not state.items(parked=True)
    rig.a.put(headers())
    rig.run()
    made = ["Device", "ImagingStudy", "Observation", "Observation", "DiagnosticReport", "Provenance"]
    assert kinds(rig) == ["Patient", *made]
    assert rig.ehr.states[-1].of_type("DiagnosticReport") == (report(rig),)


def test_a_result_of_a_known_study_is_attached_and_delivered(state: State) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    rig.run()
    keep(rig, a_result())
    rig.run()
    assert status(rig) == (1, "preliminary")
    assert rig.study()["version"] == 1
    assert len(rig.ehr.states) == len(rig.lake.states) == 2


def test_the_same_run_again_changes_nothing_and_another_content_neither(state: State) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    assert keep(rig, a_result())
    rig.run()
    assert not keep(rig, a_result())
    assert not keep(rig, a_result(conclusion="other"))
    rig.run()
    assert status(rig) == (1, "preliminary")
    assert state.ai_results(STUDY) == (a_kept(a_result()),)


def test_what_changes_in_the_study_goes_into_its_reports(state: State) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    keep(rig, a_result())
    rig.run()
    rig.a.put(headers(PatientID="P2"))
    rig.run()
    found = report(rig)
    assert found is not None
    assert found.content is not None
    assert found.version == 2
    assert found.content["subject"] == rig.study()["subject"]


def test_a_result_whose_images_are_not_there_yet_is_shown_when_they_come(state: State) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    keep(rig, a_result(a_finding(images=[an_image(sop_instance_uid=f"{STUDY}.1.2")])))
    keep(rig, a_result(run_id="run-2"))
    rig.run()
    assert report(rig) is None
    assert state.read_resource("DiagnosticReport", report_id("run-2")) is not None
    (remark,) = state.study_remarks(STUDY) or []
    assert "AI result" in remark["problem"]
    rig.a.put(headers(instance=2))
    rig.run()
    assert status(rig) == (1, "preliminary")
    assert state.study_remarks(STUDY) == []


def test_reviews_make_the_status_history(state: State) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    keep(rig, a_result())
    rig.run()
    for decision, fields in (("accept", {}), ("amend", {"conclusion": "two"}), ("reject", {})):
        assert review(rig, decision, **fields)
        rig.run()
    total, versions = state.resource_history("DiagnosticReport", REPORT, 10, 0)
    assert total == 4
    statuses = [v.content["status"] for v in versions if v.content]
    assert statuses == ["entered-in-error", "amended", "final", "preliminary"]
    assert kinds(rig).count("Provenance") == 4


def test_of_two_reviews_of_one_standing_the_second_is_not_taken(state: State) -> None:
    keep(Rig(state), a_result())
    result = state.ai_result("run-1")
    assert result is not None
    assert state.add_review(result, b"{}", 0.0)
    assert not state.add_review(result, b"{}", 0.0)


def test_a_withdrawn_study_keeps_its_reports_as_they_were(state: State) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    keep(rig, a_result())
    rig.run()
    rig.a.studies.clear()
    rig.a.log.append(STUDY)
    rig.run()
    assert rig.study()["status"] == "entered-in-error"
    assert status(rig) == (1, "preliminary")


def test_a_result_that_cannot_be_read_any_more_stops_nothing(state: State) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    state.keep_result(KeptResult("old", STUDY, b'{"of": "another time"}'), rig.now, 0, 0)
    keep(rig, a_result())
    rig.run()
    assert status(rig) == (1, "preliminary")
    (remark,) = state.study_remarks(STUDY) or []
    assert "cannot read" in remark["problem"]


def test_the_lake_s_findings_and_reports_are_those_of_the_results(state: State, tmp_path: Path) -> None:
    rig, lake = Rig(state), Lake(tmp_path / "lake")
    rig.pipeline.sinks = {"ehr": FakeSink("ehr"), "lake": LakeSink(lake.append, lambda: None)}
    rig.a.put(headers())
    keep(rig, a_result(a_full_finding()))
    rig.run()
    lake.publish(datetime(2026, 1, 1, tzinfo=UTC))
    generation = lake.current()
    assert generation is not None
    found = run_sql(
        generation,
        "SELECT DISTINCT f.code, f.value_code, f.value_number, f.value_unit, f.body_site_code, f.asserted_by_ai, "
        "f.device, f.status, s.study_instance_uid FROM imaging_finding f JOIN imaging_study s USING (study_key) "
        "ORDER BY f.code",
    )
    shared = ("39607008", True, "LungNet 2.1.0", "preliminary", STUDY)
    assert list(found.rows) == [
        ("427359005", "52101004", None, None, *shared),
        ("81827009", None, 8.5, "mm", *shared),
    ]
    reports = run_sql(generation, "SELECT status, count(*) FROM diagnostic_report GROUP BY status")
    assert list(reports.rows) == [("preliminary", 1)]


def test_what_is_read_has_its_labels_beside_its_version(state: State) -> None:
    rig = Rig(state)
    rig.a.put(headers())
    keep(rig, a_result())
    rig.run()
    found = report(rig)
    assert found is not None
    read = with_meta(found)
    assert read["meta"]["versionId"] == "1"
    assert read["meta"]["security"][0]["code"] == "AIAST"
    assert with_meta(found, frozenset({"status"}))["meta"].keys() == {"versionId", "lastUpdated", "security", "tag"}


SERVERS = {
    "R4": {},
    "R5": {"version": "5.0.0", "types": R5_TYPES},
    "R5 without selections": {"version": "5.0.0"},
    "ids of its own": {"client_ids": False},
    "no bundles": {"bundles": ()},
    "nothing conditional": {"client_ids": False, "conditional": False},
}


@pytest.mark.parametrize("how", SERVERS)
def test_a_server_gets_results_once_and_follows_their_reviews(state: State, how: str) -> None:
    server = FhirFake(**{"types": TYPES} | SERVERS[how])  # type: ignore[arg-type]
    rig = Delivery(state, server)
    rig.a.put(headers())
    keep(rig, a_result(a_full_finding(text="spiculated"), conclusion="One nodule."))
    rig.run()
    assert rig.parked() == {}
    (found,) = server.all("DiagnosticReport")
    assert found["status"] == "preliminary"
    assert len(server.all("Observation")) == 2
    assert len(server.all("Provenance")) == (1 if server.client_ids else 0)
    assert len(server.all("ImagingSelection")) == (4 if how == "R5" else 0)
    assert dangling(server) == set()
    version = "r5" if server.version == "5.0.0" else "r4"
    for kind in R5_TYPES:
        for one in server.all(kind):
            assert told_wrong(json.loads(json.dumps(one)), version) == []
    before = counted(server)
    rig.again(STUDY)
    assert counted(server) == before
    review(rig, "accept")
    rig.run()
    (found,) = server.all("DiagnosticReport")
    assert (found["status"], found["resultsInterpreter"][0]["display"]) == ("final", "Leser, Lia")
    assert [s["code"] for s in found["meta"]["security"]] == ["AIAST", "CLINAST"]
    assert {o["status"] for o in server.all("Observation")} == {"final"}
    assert dangling(server) == set()


def test_what_a_reader_signed_on_the_server_is_not_undone(state: State) -> None:
    server = FhirFake(types=TYPES)
    rig = Delivery(state, server)
    rig.a.put(headers())
    keep(rig, a_result())
    rig.run()
    (found,) = server.all("DiagnosticReport")
    server.put(found | {"status": "final", "conclusion": "read by a person"})
    rig.a.put(headers(StudyDescription="changed"))
    rig.again(STUDY)
    (now,) = server.all("DiagnosticReport")
    assert (now["status"], now["conclusion"]) == ("final", "read by a person")
    assert rig.parked() == {}


def test_a_result_changed_on_the_server_by_mistake_is_mended(state: State) -> None:
    server = FhirFake(types=TYPES)
    rig = Delivery(state, server)
    rig.a.put(headers())
    keep(rig, a_result())
    rig.run()
    (found,) = server.all("Observation")
    server.put(found | {"code": {"text": "other"}, "note": [{"text": "theirs"}]})
    rig.again(STUDY)
    (now,) = server.all("Observation")
    assert now["code"] == found["code"]
    assert now["note"] == [{"text": "theirs"}]


@pytest.mark.parametrize("missing", ["Observation", "DiagnosticReport"])
def test_a_server_that_cannot_hold_reports_gets_the_study_alone(state: State, missing: str) -> None:
    server = FhirFake(types=tuple(t for t in TYPES if t != missing))
    rig = Delivery(state, server)
    rig.a.put(headers())
    keep(rig, a_result())
    rig.run()
    assert rig.parked() == {}
    assert len(server.all("ImagingStudy")) == 1
    assert not [k for k in server.history if k.split("/")[0] in ("Device", "Observation", "DiagnosticReport")]


def test_a_server_without_devices_is_told_the_program_by_name(state: State) -> None:
    server = FhirFake(types=tuple(t for t in TYPES if t != "Device"))
    rig = Delivery(state, server)
    rig.a.put(headers())
    keep(rig, a_result())
    rig.run()
    (found,) = server.all("Observation")
    assert found["device"] == {"type": "Device", "display": "LungNet 2.1.0"}


def test_a_result_that_the_server_refuses_parks_its_study_alone(state: State) -> None:
    server = FhirFake(types=TYPES, bundles=())
    server.fault = _refused
    rig = Delivery(state, server)
    rig.a.put(headers(), headers(study="1.2.3.4"))
    keep(rig, a_result())
    rig.run()
    assert list(rig.parked()) == [STUDY]
    assert len(server.all("ImagingStudy")) == 2
    server.fault = None
    rig.again(STUDY)
    assert rig.parked() == {}
    assert len(server.all("DiagnosticReport")) == 1


def _refused(request: httpx.Request) -> httpx.Response | None:
    if request.method in ("PUT", "POST") and b'"resourceType":"Observation"' in request.content:
        return httpx.Response(422, json={"resourceType": "OperationOutcome", "issue": []})
    return None
