from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from bridge.errors import Conflict, ProjectError, RefusedByServer, SinkUnavailable, SourceUnavailable
from bridge.model import Receipt, Role, StudyResult, StudyState
from bridge.ports import StudyHeaders
from bridge.state import State
from bridge.sync import Pipeline, Timing
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers
from bridge.translate.validate import validate
from tests.archive_fake import FakeArchive, FakeSink
from tests.builders import STUDY, a_translator, headers


class Rig:
    """One pipeline with two archives and two sinks, driven by hand; the clock moves only when told."""

    def __init__(self, state: State) -> None:
        self.state, self.now = state, 1_000_000.0
        self.a, self.b = FakeArchive("a"), FakeArchive("b")
        self.ehr, self.lake = FakeSink("ehr"), FakeSink("lake", wants_rows=True)
        self.pipeline = Pipeline(
            state=state,
            sources={"a": self.a, "b": self.b},
            sinks={"ehr": self.ehr, "lake": self.lake},
            translator=a_translator(),
            timing=Timing(quiet_s=3, max_wait_s=60),
            clock=lambda: self.now,
            random=lambda: 1.0,
        )
        self.pipeline.prepare()

    def run(self, seconds: float = 10.0) -> None:
        """Everything that is due within so many seconds, in steps."""
        step = 1.0 if seconds <= 60 else seconds / 40
        for _ in range(int(seconds / step)):
            self.now += step
            line = self.pipeline
            steps = (line.poll, line.sweep, line.verify, line.backfill, line.translate)
            while any(step("w") for step in steps):
                pass
            for name in self.pipeline.sinks:
                try:
                    while self.pipeline.deliver(name, "w"):
                        pass
                except SinkUnavailable:
                    continue

    def study(self) -> dict[str, object]:
        (found,) = [r for r in self.state.study_resources(STUDY) if r.resource_type == "ImagingStudy"]
        assert found.content is not None
        return found.content | {"version": found.version}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield Rig(state)
    state.close()


def test_a_study_goes_from_the_archive_to_every_sink(rig: Rig) -> None:
    rig.a.put(headers(instance=1), headers(instance=2))
    rig.run()
    assert rig.study()["numberOfInstances"] == 2
    for sink in (rig.ehr, rig.lake):
        (state,) = sink.states
        assert [r.resource_type for r in state.resources] == ["Patient", "ImagingStudy"]
    assert rig.ehr.states[0].rows == {}
    assert len(rig.lake.states[0].rows["dicom_instance"]) == 2
    assert [q for q, *_ in rig.state.depth()] == ["poll", "sweep", "verify"]


def test_late_and_repeated_instances_make_one_new_version_and_none(rig: Rig) -> None:
    rig.a.put(headers(instance=1))
    rig.run()
    rig.a.put(headers(instance=2))
    rig.run()
    assert (rig.study()["version"], rig.study()["numberOfInstances"]) == (2, 2)
    rig.a.put(headers(instance=2), headers(instance=1))
    rig.run()
    assert rig.study()["version"] == 2
    assert len(rig.ehr.states) == 2


def test_a_change_only_in_the_headers_goes_to_the_lake_alone(rig: Rig) -> None:
    rig.a.put(headers(instance=1))
    rig.run()
    rig.a.put(headers(instance=1, KVP=80))
    rig.run()
    assert len(rig.ehr.states) == 1
    assert [s.rows["dicom_instance"][0]["kvp_kv"] for s in rig.lake.states] == [120.0, 80.0]


def test_a_study_in_two_archives_is_one_resource_whoever_comes_first(tmp_path: Path) -> None:
    contents = []
    for order in ("ab", "ba"):
        state = State(f"sqlite:///{tmp_path / order}.sqlite")
        rig = Rig(state)
        instances = [headers(series=s, instance=i) for s in (1, 2) for i in (1, 2, 3)]
        for name in order:
            archive: FakeArchive = getattr(rig, name)
            archive.put(*(instances if name == "a" else reversed(instances)))
            rig.run()
        found = state.study_resources(STUDY)
        contents.append(orjson.dumps([r.content for r in found]))
        assert {r.version for r in found} == {1}
        state.close()
    assert contents[0] == contents[1]


def test_a_study_that_left_one_archive_stays_and_one_that_left_all_is_withdrawn(rig: Rig) -> None:
    rig.a.put(headers())
    rig.b.put(headers())
    rig.run()
    rig.a.studies.clear()
    rig.a.log.append(STUDY)
    rig.run()
    assert rig.study()["status"] == "available"
    rig.b.studies.clear()
    rig.b.log.append(STUDY)
    rig.run()
    assert rig.study()["status"] == "entered-in-error"
    assert rig.ehr.newest()[STUDY].of_type("ImagingStudy")[0].content["status"] == "entered-in-error"  # type: ignore[index]
    rig.a.put(headers())
    rig.run()
    assert rig.study()["status"] == "available"


def test_the_sweep_finds_what_no_change_told(rig: Rig) -> None:
    other = STUDY + ".5"
    rig.a.put(headers(), headers(study=other))
    rig.run()
    rig.a.studies.pop(other)
    rig.a.put(headers(instance=2), quietly=True)
    rig.run(1010)
    assert rig.study()["numberOfInstances"] == 2
    gone = [r.content for r in rig.state.study_resources(other) if r.resource_type == "ImagingStudy"]
    assert gone[0] is not None
    assert gone[0]["status"] == "entered-in-error"


@pytest.fixture
def many(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Forty studies of two instances, all shown; a pass counts four of them."""
    monkeypatch.setattr("bridge.sync.VERIFIED_PER_PASS", 4)
    studies = [f"1.2.3.{n}" for n in range(10, 50)]
    for uid in studies:
        rig.a.put(headers(study=uid, instance=1), headers(study=uid, instance=2))
    rig.run(20)
    rig.a.counted.clear()
    return studies


def shown(rig: Rig, uid: str) -> tuple[str, int]:
    (content,) = [r.content for r in rig.state.study_resources(uid) if r.resource_type == "ImagingStudy"]
    assert content is not None
    return content["status"], content["numberOfInstances"]


def test_what_the_total_lacks_is_found_by_passes_that_follow_each_other_at_once(rig: Rig, many: list[str]) -> None:
    del rig.a.studies[many[1]]
    del rig.a.studies[many[38]][f"{many[38]}.1.2"]
    rig.run(12)
    assert shown(rig, many[1]) == ("entered-in-error", 0)
    assert shown(rig, many[38]) == ("available", 1)
    assert {shown(rig, uid) for uid in many if uid not in (many[1], many[38])} == {("available", 2)}
    assert max(rig.a.counted) == 4
    assert len(rig.a.counted) <= 13
    assert rig.b.counted == []


def test_a_deletion_that_an_addition_balances_is_found_by_the_calm_passes(rig: Rig, many: list[str]) -> None:
    del rig.a.studies[many[20]]
    rig.a.put(headers(study="1.2.4.1", instance=1), headers(study="1.2.4.1", instance=2), quietly=True)
    rig.run(110)
    assert shown(rig, many[20]) == ("entered-in-error", 0)
    assert len(rig.a.counted) <= 11


def test_a_total_that_is_always_wrong_hurries_one_round_only(rig: Rig, many: list[str]) -> None:
    rig.a.lost_in_total = 7
    rig.run(12)
    assert len(rig.a.counted) in (11, 12, 13)
    rig.a.counted.clear()
    rig.run(100)
    assert len(rig.a.counted) in (9, 10, 11)
    del rig.a.studies[many[30]]
    rig.run(12)
    assert shown(rig, many[30]) == ("entered-in-error", 0)


def test_haste_ends_when_what_is_missing_was_found_even_if_it_cannot_be_read(
    rig: Rig, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_self: FakeArchive, _uid: str) -> object:
        raise SourceUnavailable("source a: HTTP 500")

    del rig.a.studies[many[2]]
    monkeypatch.setattr(FakeArchive, "read", unreadable)
    rig.run(100)
    assert len(rig.a.counted) <= 13
    assert shown(rig, many[2]) == ("available", 2)


def test_a_study_that_is_said_to_be_settled_is_read_again_only_if_its_count_differs(rig: Rig) -> None:
    rig.a.put(headers(instance=1), headers(instance=2))
    rig.run()
    before = rig.a.reads
    rig.a.settled = {STUDY}
    rig.run()
    assert rig.a.reads == before
    rig.a.put(headers(instance=3), quietly=True)
    rig.a.settled = {STUDY, STUDY + ".9"}
    rig.run(5)
    assert rig.study()["numberOfInstances"] == 3
    del rig.a.studies[STUDY]
    rig.a.settled = {STUDY}
    rig.run(5)
    assert rig.study()["status"] == "entered-in-error"


def test_a_study_that_cannot_be_counted_is_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_self: FakeArchive, _uids: object) -> dict[str, int]:
        raise SourceUnavailable("source a: HTTP 403")

    monkeypatch.setattr(FakeArchive, "count", refused)
    rig.a.put(headers(instance=1))
    rig.run()
    rig.a.put(headers(instance=2), quietly=True)
    rig.a.settled = {STUDY}
    rig.run()
    assert rig.study()["numberOfInstances"] == 2


class SilentArchive(FakeArchive):
    """Tells nothing of what changes in studies it has told of."""

    rereads_per_pass = 2


def test_what_changes_without_a_feed_or_a_count_is_found_by_reading_again(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    rig = Rig(state)
    rig.pipeline.sources["a"] = rig.a = SilentArchive("a")  # type: ignore[index]
    studies = [f"1.2.3.{n}" for n in range(10, 15)]
    for uid in studies:
        rig.a.put(headers(study=uid))
    rig.run(5)
    for uid in studies:
        rig.a.put(headers(study=uid, StudyDescription="renamed"), quietly=True)
    rig.run(60)
    for uid in studies:
        (content,) = [r.content for r in state.study_resources(uid) if r.resource_type == "ImagingStudy"]
        assert content is not None
        assert content["description"] == "renamed"
    state.close()


def test_every_source_is_looked_at_when_a_process_begins(rig: Rig) -> None:
    rig.a.poll_s = 300.0
    rig.run(5)
    assert {i.key: i.due_at > rig.now for i in rig.state.items(queue="poll")}["a"]
    rig.pipeline.prepare()
    assert all(i.due_at <= rig.now for i in rig.state.items(queue="poll"))


def test_an_archive_that_is_down_holds_up_no_other_and_its_cursor_stays(rig: Rig) -> None:
    rig.a.put(headers())
    rig.a.down = True
    rig.b.put(headers(study=STUDY + ".7"))
    rig.run()
    assert rig.state.counts()["ImagingStudy"] == 1
    assert rig.state.position("a") is None
    rig.a.down = False
    rig.run(60)
    assert rig.state.counts()["ImagingStudy"] == 2


def test_a_study_of_an_archive_that_went_down_is_shown_as_far_as_known_and_finished_later(rig: Rig) -> None:
    rig.a.put(headers())
    rig.b.put(headers(instance=2))
    rig.now += 1
    rig.pipeline.poll("w")
    rig.pipeline.poll("w")
    rig.b.down = True
    rig.run()
    assert rig.study()["numberOfInstances"] == 1
    rig.b.down = False
    rig.run(60)
    assert rig.study()["numberOfInstances"] == 2
    assert not [i for i in rig.state.items() if i.queue == "study"]


def test_a_server_that_answers_500_for_an_hour_loses_nothing(rig: Rig) -> None:
    rig.ehr.down = True
    for n in range(1, 4):
        rig.a.put(headers(study=f"{STUDY}.{n}"))
    rig.run(3600)
    assert len(rig.lake.newest()) == 3
    waiting = [i for i in rig.state.items(queue="sink:ehr") if not i.parked]
    assert len(waiting) == 3
    assert all("HTTP 500" in i.error for i in waiting)
    rig.ehr.down = False
    rig.run(400)
    assert len(rig.ehr.newest()) == 3
    assert rig.state.items(queue="sink:ehr") == []


def test_what_a_server_refuses_is_parked_and_the_rest_goes_on(rig: Rig) -> None:
    bad = STUDY + ".1"
    rig.ehr.refuses[bad] = RefusedByServer("sink ehr: HTTP 422: invalid ImagingStudy.series")
    rig.a.put(headers(study=bad), headers(study=STUDY + ".2"))
    rig.run()
    assert list(rig.ehr.newest()) == [STUDY + ".2"]
    (parked,) = rig.state.items(parked=True)
    assert (parked.queue, parked.key) == ("sink:ehr", bad)
    rig.ehr.refuses.clear()
    rig.state.replay("sink:ehr", bad, rig.now)
    rig.run()
    assert bad in rig.ehr.newest()


def test_what_others_change_meanwhile_is_tried_again_a_few_times_and_then_parked(rig: Rig) -> None:
    rig.ehr.refuses[STUDY] = Conflict("sink ehr: HTTP 412")
    rig.a.put(headers(), headers(study=f"{STUDY}.2"))
    rig.run(5)
    (waiting,) = rig.state.items(queue="sink:ehr")
    assert not waiting.parked
    assert f"{STUDY}.2" in rig.ehr.newest()  # it holds up no other
    rig.run(120)
    (waiting,) = rig.state.items(queue="sink:ehr")
    assert (waiting.parked, waiting.attempts) == (True, 5)
    rig.ehr.refuses.clear()
    rig.state.replay("sink:ehr", STUDY, rig.now)
    rig.run()
    assert STUDY in rig.ehr.newest()


def test_a_sink_that_failed_is_tried_with_one_study_before_many(rig: Rig) -> None:
    rig.ehr.down = True
    for n in range(1, 5):
        rig.a.put(headers(study=f"{STUDY}.{n}"))
    rig.run(30)
    first, *again = rig.ehr.batches
    assert first == 4
    assert set(again) == {1}
    rig.ehr.down, rig.ehr.batches = False, []
    rig.run(30)
    assert rig.ehr.batches == [1, 3]


def test_a_sink_is_told_what_it_made_of_a_study_the_last_time(rig: Rig) -> None:
    rig.a.put(headers())
    rig.run()
    rig.a.put(headers(instance=2))
    rig.run()
    first, second = rig.ehr.states
    assert first.receipt is None
    assert second.receipt == Receipt(f"http://ehr/{STUDY}", "1", "digest")
    assert all(s.receipt is None for s in rig.lake.states)


def test_all_that_was_delivered_is_compared_again_once_in_so_many_hours(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    rig = Rig(state)
    rig.pipeline.timing = Timing(quiet_s=3, max_wait_s=60, recheck_hours={"ehr": 1.0})
    rig.pipeline.prepare()
    studies = [f"{STUDY}.{n}" for n in range(1, 8)]
    for uid in studies:
        rig.a.put(headers(study=uid))
    rig.run(30)
    before = len(rig.ehr.states)
    while rig.now < 1_000_000 + 3 * 3600:
        rig.now += 60
        while rig.pipeline.recheck("w"):
            pass
        rig.run(1)
    seen = [s.study_instance_uid for s in rig.ehr.states[before:]]
    assert set(seen) == set(studies)
    assert len(rig.lake.states) == len(studies)
    state.close()


def test_a_changed_setting_reaches_every_study_without_reading_an_archive(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    rig = Rig(state)
    studies = [f"{STUDY}.{n}" for n in range(1, 6)]
    for uid in studies:
        rig.a.put(headers(study=uid))
    rig.run(30)
    assert len(rig.ehr.states) == 5
    rig.pipeline.prepare()
    assert not rig.pipeline.retranslate("w")  # nothing changed
    rig.a.down = True
    again = Rig(state)
    again.now, again.a.down, again.b.down = rig.now, True, True
    again.pipeline.translator = a_translator(issuers=Issuers({}, "http://new.example/mrn"))
    again.pipeline.prepare()
    for _ in range(20):
        again.now += 1
        while again.pipeline.retranslate("w") or again.pipeline.translate("w") or again.pipeline.deliver("ehr", "w"):
            pass
    told = again.ehr.newest()
    assert sorted(told) == studies
    for one in told.values():
        (patient,) = one.of_type("Patient")[-1:]
        assert patient.content is not None
        assert patient.content["identifier"][0]["system"] == "http://new.example/mrn"
    assert state.items(queue="retranslate") == []
    state.close()


def test_a_process_with_an_earlier_translation_leaves_studies_to_the_one_that_began_later(rig: Rig) -> None:
    newer = Rig(rig.state)
    newer.pipeline.translator = a_translator(issuers=Issuers({}, "http://new.example/mrn"))
    newer.pipeline.prepare()
    rig.a.put(headers())
    newer.a.put(headers())
    rig.run()
    assert rig.pipeline.translate("old") == 0
    assert rig.state.study_resources(STUDY) == ()
    newer.now = rig.now
    newer.run()
    assert newer.study()["version"] == 1


def test_a_process_prepares_what_its_roles_need(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    pipeline = replace(Rig(state).pipeline, sources={}, timing=Timing(recheck_hours={"ehr": 1.0}))
    pipeline.prepare(frozenset({Role.WORK, Role.SERVE}))
    assert {i.queue for i in state.items()} == {"poll", "sweep", "verify"}
    pipeline.prepare(frozenset({Role.POLL}))
    assert state.items() == []
    pipeline.prepare(frozenset({Role.DELIVER}))
    assert {i.queue for i in state.items()} == {"recheck"}
    state.close()


def test_a_sink_that_is_new_gets_all_that_is_known_once(rig: Rig) -> None:
    studies = [f"{STUDY}.{n}" for n in range(1, 8)]
    rig.a.put(*(headers(study=uid) for uid in studies))
    rig.run()
    later = FakeSink("later")
    rig.pipeline.sinks = {**rig.pipeline.sinks, "later": later}
    before = len(rig.ehr.states)
    for _ in range(2):  # also when the bridge is started again
        rig.pipeline.prepare()
        rig.run()
        assert sorted(s.study_instance_uid for s in later.states) == studies
    assert len(rig.ehr.states) == before


def test_a_broken_instance_is_parked_the_study_goes_on_and_the_repair_clears_it(rig: Rig) -> None:
    broken = Headers({**headers(instance=2), "SeriesInstanceUID": ("none",)})
    rig.a.put(headers(instance=1), broken)
    rig.run()
    assert rig.study()["numberOfInstances"] == 1
    (parked,) = rig.state.items(parked=True)
    assert parked.queue == "instance"
    assert "SeriesInstanceUID" in parked.error
    rig.a.put(headers(instance=2))
    rig.run()
    assert rig.study()["numberOfInstances"] == 2
    assert rig.state.items(parked=True) == []


def test_a_parked_instance_can_be_replayed_by_hand(rig: Rig) -> None:
    broken = Headers({**headers(instance=2), "SeriesInstanceUID": ("none",)})
    rig.a.put(headers(instance=1), broken)
    rig.run()
    rig.a.put(headers(instance=2), quietly=True)
    (parked,) = rig.state.items(parked=True)
    rig.state.replay(parked.queue, parked.key, rig.now)
    rig.run()
    assert rig.study()["numberOfInstances"] == 2


def test_a_study_of_two_patients_is_parked_and_its_last_good_version_stays(rig: Rig) -> None:
    rig.a.put(headers(instance=1))
    rig.run()
    rig.a.put(headers(instance=2, PatientID="P2"))
    rig.run()
    assert rig.study()["numberOfInstances"] == 1
    (parked,) = rig.state.items(parked=True)
    assert parked.error.startswith("PatientID")
    assert "P2" not in parked.error
    rig.a.put(headers(instance=2))
    rig.run()
    assert rig.study()["numberOfInstances"] == 2


def test_a_patient_is_as_the_latest_study_has_it_whatever_the_order(tmp_path: Path) -> None:
    old = headers(study=STUDY + ".1", StudyDate="20200101", PatientName="Maiden^Eva")
    new = headers(study=STUDY + ".2", StudyDate="20240101", PatientName="Married^Eva")
    families = []
    for number, order in enumerate(((old, new), (new, old))):
        state = State(f"sqlite:///{tmp_path / str(number)}.sqlite")
        rig = Rig(state)
        for instance in order:
            rig.a.put(instance)
            rig.run()
        patient = state.study_resources(STUDY + ".1")[0].content
        assert patient is not None
        families.append(patient["name"][0]["family"])
        assert state.counts()["Patient"] == 1
        state.close()
    assert families == ["Married", "Married"]


def test_a_study_that_moves_to_another_patient_takes_its_subject_along(rig: Rig) -> None:
    rig.a.put(headers(PatientID="WRONG"))
    rig.run()
    before = rig.study()["subject"]
    rig.a.put(headers(PatientID="RIGHT"))
    rig.run()
    assert rig.study()["subject"] != before
    assert rig.state.counts()["Patient"] == 1
    assert rig.state.counts()["ImagingStudy"] == 1


def test_a_bug_met_by_one_study_is_parked_without_its_values(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: FakeArchive, uid: str) -> object:
        raise ZeroDivisionError("SECRET value")

    monkeypatch.setattr(FakeArchive, "read", broken)
    rig.a.put(headers())
    rig.run()
    (parked,) = rig.state.items(parked=True)
    assert parked.error.startswith("unexpected ZeroDivisionError")
    assert "SECRET" not in parked.error


def test_a_site_can_have_every_resource_checked_before_it_is_stored(rig: Rig) -> None:
    def spoiled(result: StudyResult) -> None:
        wrong = result.resources[-1] | {"numberOfSeries": "SECRET", "status": []}
        validate(replace(result, resources=(*result.resources[:-1], wrong)))

    rig.pipeline.check = validate
    rig.a.put(headers())
    rig.run()
    assert rig.study()["status"] == "available"
    rig.pipeline.check = spoiled
    rig.a.put(headers(instance=2))
    rig.run()
    (parked,) = rig.state.items(parked=True)
    assert parked.error.startswith("ImagingStudy is not valid FHIR: ")
    assert "numberOfSeries" in parked.error
    assert "SECRET" not in parked.error
    assert rig.study()["numberOfInstances"] == 1


def test_the_sinks_get_the_newest_state_whatever_was_marked(rig: Rig) -> None:
    rig.lake.down = True
    for n in range(1, 5):
        rig.a.put(headers(instance=n))
        rig.run(5)
    rig.lake.down = False
    rig.run(60)
    delivered: list[StudyState] = rig.lake.states
    assert [len(s.rows["dicom_instance"]) for s in delivered] == [4]


def test_who_lost_the_lease_while_reading_changes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.a.put(headers(instance=1))
    rig.run()
    plain, late = FakeArchive.read, list[str]()

    def slow(archive: FakeArchive, uid: str) -> StudyHeaders:
        found = plain(archive, uid)
        if not late:
            late.append(uid)
            archive.put(headers(instance=2))
            rig.now += 100.0  # the lease ends, another worker reads and translates what is there by now
            assert rig.pipeline.poll("w2")
            rig.now += 10.0
            assert rig.pipeline.translate("w2")
        return found

    monkeypatch.setattr(FakeArchive, "read", slow)
    rig.a.put(headers(instance=1, KVP=80))
    rig.now += 10.0
    assert rig.pipeline.poll("w")
    rig.now += 10.0
    assert rig.pipeline.translate("w")
    assert late
    assert len(rig.state.snapshots(STUDY)["a"]) == 2


def test_rows_of_headers_that_were_taken_back_before_the_study_was_translated_go_again(rig: Rig) -> None:
    rig.a.put(headers(instance=1))
    rig.run()

    def killed(stage: str) -> None:
        if stage == "snapshots committed":
            raise KeyboardInterrupt

    rig.pipeline.at = killed
    rig.a.put(headers(instance=1, KVP=80))
    with pytest.raises(KeyboardInterrupt):
        rig.run()
    rig.pipeline.at = lambda _stage: None
    rig.state.mark_known("lake", rig.now)
    assert rig.pipeline.deliver("lake", "w") == 1
    rig.a.put(headers(instance=1))
    rig.run(60)
    assert [s.rows["dicom_instance"][0]["kvp_kv"] for s in rig.lake.states] == [120.0, 80.0, 120.0]
    assert len(rig.ehr.states) == 1


def test_a_sink_has_the_newest_state_after_a_delivery_that_lost_its_lease(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, late = FakeSink.deliver, list[str]()

    def slow(sink: FakeSink, states: Sequence[StudyState]) -> list[Receipt | ProjectError | None]:
        if not late and sink.wants_rows:
            late.append(sink.name)
            rig.a.put(headers(instance=1, KVP=80))
            rig.now += 100.0  # the lease ends, another worker delivers what is there by now
            assert rig.pipeline.poll("w2")
            rig.now += 10.0
            assert rig.pipeline.translate("w2")
            assert rig.pipeline.deliver("lake", "w2")
        return plain(sink, states)

    monkeypatch.setattr(FakeSink, "deliver", slow)
    rig.a.put(headers(instance=1))
    rig.run()
    assert [s.rows["dicom_instance"][0]["kvp_kv"] for s in rig.lake.states] == [80.0, 120.0, 80.0]
