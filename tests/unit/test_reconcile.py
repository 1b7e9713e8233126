"""Archives, state, FHIR server and lake are compared; each kind of difference is found, named, and put right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from sqlalchemy import update

from bridge.api.operations import status
from bridge.errors import RefusedByServer
from bridge.ports import sink_queue
from bridge.reconcile.ordered import in_order, side_by_side
from bridge.reconcile.reconciler import Reconciler
from bridge.reconcile.report import Comparison, Level, Report, Standing
from bridge.reconcile.scheduled import RECONCILE_QUEUE, Scheduled
from bridge.sinks.fhir_server import FhirServerSink
from bridge.sinks.lake import LakeSink
from bridge.state import State
from bridge.state.schema import holding
from bridge.state.schema import study as study_table
from cohort.lake import Lake
from cohort.tally import LakeTally
from tests.builders import STUDY, headers
from tests.delivering import Delivery
from tests.fhir_fake import FhirFake

STUDIES = [f"{STUDY}.{n}" for n in range(4)]


class Hospital(Delivery):
    """Two archives, one FHIR server, one lake; four studies of two series with two instances each, delivered."""

    def __init__(self, state: State, server: FhirFake, where: Path | Lake) -> None:
        super().__init__(state, server)
        self.real_lake = where if isinstance(where, Lake) else Lake(where / "lake")
        self.ehr_sink: FhirServerSink = self.pipeline.sinks["ehr"]  # type: ignore[assignment]
        self.pipeline.sinks = {"ehr": self.ehr_sink, "lake": LakeSink(self.real_lake.append, lambda: None)}
        for uid in STUDIES:
            self.a.put(*(headers(study=uid, series=s, instance=i) for s in (1, 2) for i in (1, 2)))
        self.b.put(headers(study=STUDIES[0], series=3, instance=9))
        self.run()

    def study_status(self, uid: str) -> str:
        """The status of a study's ImagingStudy, as the state has it."""
        (found,) = [r for r in self.state.study_resources(uid) if r.resource_type == "ImagingStudy"]
        return str((found.content or {})["status"])

    def reconcile(self, *, repair: bool = False, whole: bool = False) -> Report:
        with LakeTally(self.real_lake) as tally:
            made = Reconciler(self.state, self.pipeline.sources, {"ehr": self.ehr_sink}, tally, lambda: self.now)
            return made.run(repair=repair, whole=whole)


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield Hospital(state, FhirFake(), tmp_path)
    state.close()


def found(report: Report, left: str, right: str) -> Comparison:
    (one,) = [c for c in report.comparisons if (c.left, c.right) == (left, right)]
    return one


def only(report: Report, left: str, right: str) -> Comparison:
    """The one comparison that does not agree."""
    assert [(c.left, c.right) for c in report.comparisons if not c.agrees] == [(left, right)]
    return found(report, left, right)


def repaired(hospital: Hospital) -> None:
    """What a repair marked is put right by the loops."""
    report = hospital.reconcile(repair=True)
    assert not report.agrees
    standings = {d.standing for c in report.comparisons for d in c.differences}
    assert Standing.MARKED in standings
    assert standings <= {Standing.MARKED, Standing.WAITING}
    hospital.run()
    assert hospital.reconcile(whole=True).agrees


def test_where_all_agree_everything_was_compared(hospital: Hospital) -> None:
    for whole in (False, True):
        report = hospital.reconcile(whole=whole)
        assert report.agrees
        assert report.as_json()["agrees"] is True
        assert found(report, "a", "state").compared == Counter(studies=4, instances=16)
        assert found(report, "state", "ehr").compared == Counter(studies=4, series=9, instances=17)
        lake = found(report, "state", "lake").compared
        assert (lake["studies"], lake["series"], lake["instances"]) == (4, 9, 17)
        assert lake["resources"] == sum(hospital.state.counts().values())


def test_a_study_that_only_the_archive_has_is_found(hospital: Hospital) -> None:
    hospital.a.put(headers(study=f"{STUDY}.99"), quietly=True)
    (one,) = only(hospital.reconcile(), "a", "state").differences
    assert (one.key, one.level, one.standing) == (f"{STUDY}.99", Level.STUDY, Standing.DIFFERENT)
    repaired(hospital)
    assert hospital.studies(f"{STUDY}.99")


def test_a_study_that_the_archive_lost_is_found(hospital: Hospital) -> None:
    hospital.a.studies.pop(STUDIES[1])
    (one,) = only(hospital.reconcile(), "a", "state").differences
    assert (one.key, one.level) == (STUDIES[1], Level.STUDY)
    repaired(hospital)


@pytest.mark.parametrize(("series", "level"), [(1, Level.INSTANCE), (5, Level.SERIES)])
def test_an_instance_and_a_series_that_came_unnoticed_are_told_apart(
    hospital: Hospital, series: int, level: Level
) -> None:
    hospital.a.put(headers(study=STUDIES[2], series=series, instance=7), quietly=True)
    (one,) = only(hospital.reconcile(), "a", "state").differences
    assert (one.key, one.level) == (STUDIES[2], level)
    repaired(hospital)


def test_headers_that_changed_unnoticed_are_found_when_archives_are_read_whole(hospital: Hospital) -> None:
    hospital.a.put(headers(study=STUDIES[2], series=1, instance=1, PatientName="Changed"), quietly=True)
    assert hospital.reconcile().agrees
    (one,) = only(hospital.reconcile(whole=True), "a", "state").differences
    assert (one.key, one.level) == (STUDIES[2], Level.CONTENT)
    assert "Changed" not in one.problem


def test_resources_that_were_not_made_from_what_is_kept_are_found(hospital: Hospital) -> None:
    other = update(holding).where(holding.c.study_instance_uid == STUDIES[3]).values(digest="0" * 64)
    with hospital.state._db.write() as connection:
        connection.execute(other)
    (one,) = only(hospital.reconcile(), "headers", "resources").differences
    assert one.key == STUDIES[3]


def test_a_study_that_the_server_lost_is_found(hospital: Hospital) -> None:
    (there,) = hospital.studies(STUDIES[0])
    hospital.server.do("DELETE", f"ImagingStudy/{there['id']}", None, {})
    (one,) = only(hospital.reconcile(), "state", "ehr").differences
    assert (one.key, one.level, one.problem) == (STUDIES[0], Level.STUDY, "the server does not have it")


def test_a_delivery_that_was_forgotten_is_found_and_made(hospital: Hospital) -> None:
    hospital.a.put(headers(study=STUDIES[0], series=1, instance=3))
    hospital.ehr_sink, sink = hospital.sink(hospital.server), hospital.pipeline.sinks.pop("ehr")
    hospital.run()
    hospital.pipeline.sinks["ehr"] = sink
    (one,) = only(hospital.reconcile(), "state", "ehr").differences
    assert (one.key, one.level) == (STUDIES[0], Level.INSTANCE)
    repaired(hospital)


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ({"description": "somebody else's"}, Level.CONTENT),
        ({"status": "cancelled"}, Level.CONTENT),
        ({"series": []}, Level.SERIES),
    ],
)
def test_what_others_changed_on_the_server_is_found(
    hospital: Hospital, change: dict[str, object], level: Level
) -> None:
    (there,) = hospital.studies(STUDIES[1])
    hospital.server.do("PUT", f"ImagingStudy/{there['id']}", there | change, {})
    (one,) = only(hospital.reconcile(), "state", "ehr").differences
    assert (one.key, one.level) == (STUDIES[1], level)
    assert "somebody" not in one.problem
    repaired(hospital)


def test_what_others_added_is_no_difference(hospital: Hospital) -> None:
    (there,) = hospital.studies(STUDIES[1])
    hospital.server.do("PUT", f"ImagingStudy/{there['id']}", there | {"note": [{"text": "seen"}]}, {})
    assert hospital.reconcile(whole=True).agrees


def test_a_study_the_server_refused_is_parked_and_stays_so(hospital: Hospital) -> None:
    hospital.state.mark(sink_queue("ehr"), [STUDIES[2]], hospital.now)
    (claim,) = hospital.state.claim(sink_queue("ehr"), hospital.now, 30, 1, "w")
    hospital.state.park(claim, hospital.now, str(RefusedByServer("HTTP 422")), {})
    (there,) = hospital.studies(STUDIES[2])
    hospital.server.do("PUT", f"ImagingStudy/{there['id']}", there | {"description": "x"}, {})
    (one,) = only(hospital.reconcile(repair=True), "state", "ehr").differences
    assert one.standing is Standing.PARKED
    assert [i.key for i in hospital.state.items(parked=True)] == [STUDIES[2]]


def test_what_is_under_way_only_waits(hospital: Hospital) -> None:
    hospital.a.put(headers(study=f"{STUDY}.99"))
    hospital.now += 2
    assert hospital.pipeline.poll("w")
    report = hospital.reconcile()
    assert report.agrees
    assert found(report, "a", "state").standings == Counter(waiting=1)


def test_what_the_lake_lost_is_found_by_study_and_by_digest(hospital: Hospital) -> None:
    (study,) = [r for r in hospital.state.study_resources(STUDIES[0]) if r.resource_type == "ImagingStudy"]
    line = {"kind": "resource", "origin": "bridge", "type": "ImagingStudy", "id": study.id, "revision": 10**6}
    rows = {"kind": "rows", "table": "dicom_instance", "key": STUDIES[1], "revision": 10**6, "rows": []}
    hospital.real_lake.append([line | {"deleted": False, "resource": {"resourceType": "ImagingStudy"}}, rows])
    report = found(hospital.reconcile(), "state", "lake")
    assert {(d.key, d.level) for d in report.differences} == {(STUDIES[0], Level.CONTENT), (STUDIES[1], Level.STUDY)}


def test_the_lake_is_repaired_by_what_the_state_has(hospital: Hospital) -> None:
    hospital.a.put(headers(study=STUDIES[3], series=4, instance=1))
    lake = hospital.pipeline.sinks.pop("lake")
    hospital.run()
    hospital.pipeline.sinks["lake"] = lake
    one = only(hospital.reconcile(), "state", "lake")
    assert {d.key for d in one.differences} == {STUDIES[3]}
    assert {d.level for d in one.differences} == {Level.CONTENT, Level.SERIES}
    repaired(hospital)


def test_a_party_that_cannot_answer_is_told_and_the_others_are_compared(hospital: Hospital) -> None:
    hospital.a.down = True
    report = hospital.reconcile()
    assert not report.agrees
    assert only(report, "a", "state").error == "source a: down"
    assert found(report, "state", "lake").compared["studies"] == 4


def test_a_damaged_file_of_the_lake_is_told_and_the_others_are_compared(hospital: Hospital) -> None:
    assert hospital.reconcile().agrees
    for path in (hospital.real_lake.root / "files").glob("dicom_instance-*"):
        path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    report = hospital.reconcile()
    assert "bridge verify" in only(report, "state", "lake").error
    assert found(report, "state", "ehr").compared["studies"] == 4


def test_withdrawn_studies_agree(hospital: Hospital) -> None:
    hospital.withdraw(STUDIES[1])
    assert hospital.reconcile(whole=True).agrees


def test_many_studies_are_read_as_each_alone(hospital: Hospital) -> None:
    hospital.withdraw(STUDIES[1])
    state, uids = hospital.state, [*STUDIES, "1.2.unknown"]
    alone = {uid: state.study_resources(uid) for uid in uids}
    assert state.studies_resources(uids) == {uid: found for uid, found in alone.items() if found}
    kept = {uid: r.content for uid, found in alone.items() for r in found if r.resource_type == "ImagingStudy"}
    assert dict(state.imaging_studies(uids)) == kept
    assert alone["1.2.unknown"] == ()


def test_a_study_without_an_imaging_study_is_known_without_content(hospital: Hospital) -> None:
    gone = update(study_table).where(study_table.c.study_instance_uid == STUDIES[3]).values(resources=b"[]")
    with hospital.state._db.write() as connection:
        connection.execute(gone)
    assert dict(hospital.state.imaging_studies(STUDIES))[STUDIES[3]] == {}
    (one,) = [d for d in found(hospital.reconcile(), "state", "lake").differences if d.level is Level.STUDY]
    assert (one.key, one.problem) == (STUDIES[3], "the lake still has rows")


def test_streams_longer_than_memory_come_in_order() -> None:
    keys = [f"{n:05}" for n in range(1000)]
    random.Random(7).shuffle(keys)
    assert [row[0] for row in in_order(((k, 1) for k in keys), at_once=64)] == sorted(keys)
    left, right = ((k, 1) for k in sorted(keys)[::2]), ((k, 2) for k in sorted(keys)[::3])
    both = [key for key, one, other in side_by_side(left, right) if one and other]
    assert both == sorted(keys)[::6]


def test_the_report_is_json(hospital: Hospital) -> None:
    hospital.a.studies.pop(STUDIES[1])
    told = orjson.loads(orjson.dumps(hospital.reconcile().as_json()))
    (one,) = [c for c in told["comparisons"] if not c["agrees"]]
    assert (one["different"], one["differences"][0]["key"]) == (1, STUDIES[1])


def test_it_is_done_again_and_again_and_when_asked_for(hospital: Hospital) -> None:
    scheduled = Scheduled(hospital.state, lambda: hospital.reconcile(repair=True), 3600, lambda: hospital.now)
    assert scheduled.step("w") == 0
    hospital.a.put(headers(study=f"{STUDY}.99"), quietly=True)
    hospital.state.mark(RECONCILE_QUEUE, ["all"], hospital.now)
    assert scheduled.step("w") == 1
    hospital.run()
    hospital.now += 3600
    told = status(hospital.state, hospital.now)["reconciliation"]
    assert (told["agrees"], told["age_s"]) == (False, 3610.0)
    assert "differences" not in told["comparisons"][0]
    assert scheduled.step("w") == 1
    assert status(hospital.state, hospital.now)["reconciliation"]["agrees"] is True


def test_a_bug_of_reconciliation_does_not_stop_the_bridge(hospital: Hospital) -> None:
    def broken() -> Report:
        raise KeyError("a value")

    scheduled = Scheduled(hospital.state, broken, 3600, lambda: hospital.now)
    hospital.now += 3600
    assert scheduled.step("w") == 1
    (item,) = hospital.state.items(queue=RECONCILE_QUEUE)
    assert "KeyError" in item.error
    assert "a value" not in item.error
    assert item.due_at > hospital.now


def test_asked_for_alone_it_is_done_once(hospital: Hospital) -> None:
    scheduled = Scheduled(hospital.state, hospital.reconcile, 0, lambda: hospital.now)
    hospital.state.mark(RECONCILE_QUEUE, ["all"], hospital.now)
    assert [scheduled.step("w"), scheduled.step("w")] == [1, 0]
