"""What people do to studies inside a real Orthanc, followed by the loops without any comparison of everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.sources.orthanc import Orthanc
from bridge.state import State
from bridge.sync import Pipeline, Timing
from tests.archive_fake import FakeSink
from tests.builders import a_translator
from tests.dicom_files import study_bytes
from tests.services.orthanc_server import OrthancServer, running_orthanc

STUDY, OTHER = "1.2.826.0.1.3680043.10.1561.1", "1.2.826.0.1.3680043.10.1561.2"
KEEP = {"Keep": ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"], "Force": True}


class Counting(httpx.HTTPTransport):
    """Counts requests by the last part of their path."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path.rpartition("/")[2])
        return super().handle_request(request)


class Following:
    """The loops over one Orthanc, without sweeps; the clock moves only when told."""

    def __init__(self, orthanc: OrthancServer, folder: Path) -> None:
        self.orthanc, self.now, self.transport, self.sink = orthanc, 1_000_000.0, Counting(), FakeSink("ehr")
        self.source = Orthanc(
            "pacs", orthanc.url, username=orthanc.username, password=orthanc.password, transport=self.transport
        )
        self.state = State(f"sqlite:///{folder / 'state.sqlite'}")
        self.pipeline = Pipeline(
            self.state, {"pacs": self.source}, {"ehr": self.sink}, a_translator(), Timing(quiet_s=0),
            clock=lambda: self.now, random=lambda: 0.0,
        )  # fmt: skip
        self.pipeline.prepare()

    def passes(self, number: int = 2) -> None:
        """So many times the distance of calm verify passes: everything due is done each time."""
        steps = (self.pipeline.poll, self.pipeline.verify, self.pipeline.translate)
        for _ in range(number):
            self.now += self.source.verify_s + 1
            while any([step("w") for step in steps] + [self.pipeline.deliver("ehr", "w")]):
                pass

    def told(self, uid: str) -> tuple[str, int, str]:
        """What the sink was last told: status, number of instances, the patient's identifier."""
        state = self.sink.newest()[uid]
        (study,) = (r.content for r in state.of_type("ImagingStudy"))
        (patient,) = (r.content for r in state.of_type("Patient") if r.content is not None)
        assert study is not None
        return study["status"], study["numberOfInstances"], patient["identifier"][0]["value"]

    def change(self, path: str, **asked: Any) -> None:
        """A job of Orthanc, waited for."""
        with self.orthanc.client() as client:
            client.post(path, json=asked | {"Synchronous": True}).raise_for_status()

    def path(self, uid: str) -> str:
        """The address of the one resource with this UID or patient id."""
        with self.orthanc.client() as client:
            (found,) = client.post("/tools/lookup", content=uid).raise_for_status().json()
        return str(found["Path"])

    def delete(self, uid: str) -> None:
        with self.orthanc.client() as client:
            client.delete(self.path(uid)).raise_for_status()

    def close(self) -> None:
        self.source.close()
        self.state.close()


@pytest.fixture
def following(orthanc: OrthancServer, tmp_path: Path) -> Iterator[Following]:
    following = Following(orthanc, tmp_path)
    yield following
    following.close()


def test_a_patient_reidentified_takes_the_study_along(following: Following) -> None:
    following.orthanc.upload(study_bytes(STUDY, series=2, PatientID="WRONG"))
    following.passes()
    assert following.told(STUDY) == ("available", 4, "WRONG")
    following.change(f"{following.path('WRONG')}/modify", Replace={"PatientID": "RIGHT"}, KeepSource=False, **KEEP)
    following.passes()
    assert following.told(STUDY) == ("available", 4, "RIGHT")
    assert {h.text("PatientID") for h in following.source.read(STUDY).instances} == {"RIGHT"}


def test_a_copy_under_another_patient_is_one_study_and_what_is_left_of_it_is_told(following: Following) -> None:
    following.orthanc.upload(study_bytes(STUDY, series=2, PatientID="WRONG"))
    following.passes()
    following.change(f"{following.path('WRONG')}/modify", Replace={"PatientID": "RIGHT"}, KeepSource=True, **KEEP)
    following.passes()
    assert following.told(STUDY)[:2] == ("available", 4)
    parked = following.state.items(parked=True)
    assert len(parked) == 4
    assert {i.error.split(":")[0] for i in parked} == {"SOPInstanceUID"}
    following.delete("WRONG")
    following.passes()
    assert following.told(STUDY) == ("available", 4, "RIGHT")
    assert following.state.items(parked=True) == []


def test_a_series_moved_to_another_study_leaves_the_one_and_is_in_the_other(following: Following) -> None:
    following.orthanc.upload(study_bytes(STUDY, series=2, PatientID="A"))
    following.orthanc.upload(study_bytes(OTHER, PatientID="B"))
    following.passes()
    moved = following.path(f"{STUDY}.2").rpartition("/")[2]
    following.change(f"{following.path(OTHER)}/merge", Resources=[moved], KeepSource=False)
    following.passes()
    assert following.told(STUDY) == ("available", 2, "A")
    assert following.told(OTHER) == ("available", 4, "B")


def test_a_series_split_off_is_a_study_of_its_own(following: Following) -> None:
    following.orthanc.upload(study_bytes(STUDY, series=3))
    following.passes()
    apart = following.path(f"{STUDY}.3").rpartition("/")[2]
    following.change(f"{following.path(STUDY)}/split", Series=[apart], KeepSource=False)
    following.passes()
    (new,) = following.sink.newest().keys() - {STUDY}
    assert following.told(STUDY)[:2] == ("available", 4)
    assert following.told(new)[:2] == ("available", 2)


def test_a_study_merged_into_another_is_gone(following: Following) -> None:
    following.orthanc.upload(study_bytes(STUDY))
    following.orthanc.upload(study_bytes(OTHER))
    following.passes()
    merged = following.path(STUDY).rpartition("/")[2]
    following.change(f"{following.path(OTHER)}/merge", Resources=[merged], KeepSource=False)
    following.passes()
    assert following.told(STUDY)[:2] == ("entered-in-error", 0)
    assert following.told(OTHER)[:2] == ("available", 4)


def test_a_study_modified_in_orthanc_is_a_new_study_and_the_old_one_is_gone(following: Following) -> None:
    following.orthanc.upload(study_bytes(STUDY))
    following.passes()
    following.change(f"{following.path(STUDY)}/modify", Replace={"StudyDescription": "other"}, KeepSource=False)
    following.passes()
    (new,) = following.sink.newest().keys() - {STUDY}
    assert following.told(STUDY)[:2] == ("entered-in-error", 0)
    assert following.told(new)[:2] == ("available", 2)


def test_a_study_anonymized_in_orthanc_is_another_study(following: Following) -> None:
    following.orthanc.upload(study_bytes(STUDY))
    following.passes()
    following.change(f"{following.path(STUDY)}/anonymize", KeepSource=True)
    following.passes()
    (new,) = following.sink.newest().keys() - {STUDY}
    assert following.told(STUDY)[:2] == following.told(new)[:2] == ("available", 2)


def test_a_study_deleted_and_sent_again_between_two_looks_is_read_anew(following: Following) -> None:
    following.orthanc.upload(study_bytes(STUDY, PatientID="WRONG"))
    following.passes()
    following.delete(STUDY)
    following.orthanc.upload(study_bytes(STUDY, PatientID="RIGHT"))
    following.passes()
    assert following.told(STUDY) == ("available", 2, "RIGHT")


def test_a_reconstructed_study_stays_as_it_is(following: Following) -> None:
    following.orthanc.upload(study_bytes(STUDY))
    following.passes()
    before = following.sink.newest()[STUDY]
    following.change(f"{following.path(STUDY)}/reconstruct")
    following.passes()
    assert following.sink.newest()[STUDY] == before


def test_what_is_deleted_among_many_studies_is_told_within_a_few_passes(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sync.VERIFIED_PER_PASS", 20)
    studies = [f"1.2.826.0.1.3680043.10.1561.7.{n}" for n in range(1, 121)]
    for study in studies:
        following.orthanc.upload(study_bytes(study, series=2, instances=1))
    following.passes()
    for gone in (studies[3], f"{studies[60]}.2", f"{studies[110]}.1.1"):
        following.delete(gone)
    following.transport.asked.clear()
    following.passes(1)
    assert following.told(studies[3])[:2] == ("entered-in-error", 0)
    assert following.told(studies[60])[:2] == following.told(studies[110])[:2] == ("available", 1)
    assert following.transport.asked.count("metadata") <= 3
    assert following.transport.asked.count("find") <= 2 * (len(studies) // 20 + 2)
    following.transport.asked.clear()
    following.passes(1)
    assert following.transport.asked.count("find") == 2


@pytest.mark.parametrize("late", [0, 1])
def test_a_study_that_became_stable_is_read_again_only_if_something_came(tmp_path: Path, late: int) -> None:
    with running_orthanc(tmp_path, {"StableAge": 1}) as orthanc:
        following = Following(orthanc, tmp_path)
        orthanc.upload(study_bytes(STUDY))
        following.passes()
        orthanc.upload(study_bytes(STUDY, instances=late, first=3))
        until = time.monotonic() + 60
        with orthanc.client() as client:
            while not client.get(following.path(STUDY)).json()["IsStable"]:
                assert time.monotonic() < until, "Orthanc never reported its study as stable"
                time.sleep(0.1)
        following.passes()
        assert following.told(STUDY)[:2] == ("available", 2 + late)
        assert following.transport.asked.count("metadata") == 1 + late
        following.close()


def test_a_plugin_that_gives_main_attributes_only_is_not_believed(tmp_path: Path) -> None:
    main_only = {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "MainDicomTags"}
    with running_orthanc(tmp_path, {"DicomWeb": main_only}) as orthanc:
        following = Following(orthanc, tmp_path)
        orthanc.upload(study_bytes(STUDY, series=2, instances=3, SliceThickness=2))
        found = following.source.read(STUDY)
        assert (found.held, len(found.instances), found.rejected) == (6, 6, ())
        assert {h.text("SOPClassUID") for h in found.instances} == {"1.2.840.10008.5.1.4.1.1.2"}
        assert {h["SliceThickness"] for h in found.instances} == {(2.0,)}
        following.close()


def test_an_instance_whose_file_is_missing_from_the_storage_is_parked_alone(
    following: Following, tmp_path: Path
) -> None:
    following.orthanc.upload(study_bytes(STUDY, series=2, instances=3))
    lost = next(p for p in (tmp_path / "orthanc" / "storage").rglob("*") if p.is_file())
    content = lost.read_bytes()
    lost.unlink()
    following.orthanc.restart()
    following.passes()
    assert following.told(STUDY)[:2] == ("available", 5)
    (parked,) = following.state.items(parked=True)
    assert "missing from Orthanc's storage" in parked.error
    lost.write_bytes(content)
    following.state.replay(parked.queue, parked.key, following.now)
    following.passes()
    assert following.told(STUDY)[:2] == ("available", 6)
    assert following.state.items(parked=True) == []
