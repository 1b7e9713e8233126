"""Defects of DICOM Cast, the bridge between the same two standards before this one, each as a test of ours, from the
archive to the FHIR server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.api.operations import status
from bridge.errors import SinkUnavailable
from bridge.sinks.fhir_server import SubjectPolicy
from bridge.sinks.fhir_server.subjects import escaped
from bridge.state import State
from tests.contract.fhir_sink import MRN, a_patient
from tests.delivering import QUEUE, Delivery, counted, dangling
from tests.dicom_server.archive import SimulatedArchive
from tests.dicom_server.connecting import connect
from tests.fhir_fake import FhirFake
from tests.unit.test_delivery_pitfalls import StampsSource
from tests.unit.test_fhir_server_sink import writes

STUDY, OTHER = "1.2.3.1", "1.2.3.2"
CREATE = SubjectPolicy("create")

Begin = Callable[..., Delivery]
FEEDS = pytest.mark.parametrize("version", ["v1", "v2"])


@pytest.fixture
def archive() -> SimulatedArchive:
    return SimulatedArchive()


@pytest.fixture
def begin(archive: SimulatedArchive, tmp_path: Path) -> Iterator[Begin]:
    """Makes a bridge from the archive's change feed to a server; each with a state of its own."""
    closing: list[Callable[[], None]] = []

    def made(server: FhirFake | None = None, version: str = "v2", **policy: Any) -> Delivery:
        source = connect(archive, version, poll_s=2.0)
        state = State(f"sqlite:///{tmp_path / f'{len(closing)}.sqlite'}")
        closing.extend([source.close, state.close])
        return Delivery(state, server or FhirFake(), source, **policy)

    yield made
    for close in closing:
        close()


def subject(rig: Delivery, uid: str = STUDY) -> dict[str, Any]:
    (study,) = rig.studies(uid)
    found: dict[str, Any] = study["subject"]
    return found


@FEEDS
def test_defect_1_a_bulk_update_stops_nothing(archive: SimulatedArchive, begin: Begin, version: str) -> None:
    rig = begin(version=version)
    archive.put(STUDY, instances=3, StudyDescription="before")
    rig.run(20)
    archive.update(STUDY, StudyDescription="after")
    archive.put(OTHER)
    rig.run(20)
    assert [s["description"] for s in rig.studies(STUDY)] == ["after"]
    assert len(rig.studies(OTHER)) == 1
    assert rig.state.items(parked=True) == []


def test_defect_3_a_replay_of_everything_makes_nothing_twice(archive: SimulatedArchive, begin: Begin) -> None:
    """What was made unconditionally was doubled by every replay and restart."""
    server = FhirFake(client_ids=False)
    archive.put(STUDY)
    archive.put(OTHER)
    begin(server, subjects=CREATE).run(20)
    had = {place: len(versions) for place, versions in server.history.items()}
    begin(server, subjects=CREATE).run(20)  # everything that was known is lost
    assert {place: len(versions) for place, versions in server.history.items()} == had


@FEEDS
def test_defect_5_a_database_that_was_replaced_is_read_anew_and_not_forever(
    archive: SimulatedArchive, begin: Begin, version: str
) -> None:
    rig = begin(version=version)
    archive.put(STUDY, instances=5)
    rig.run(20)
    archive.reset()
    archive.put(OTHER, instances=1)
    before = len(archive.requests)
    rig.run(20)
    assert len(archive.requests) - before < 100
    assert len(rig.studies(OTHER)) == 1
    assert [s["status"] for s in rig.studies(STUDY)] == ["entered-in-error"]
    archive.put("1.2.3.3")
    rig.run(20)
    assert len(rig.studies("1.2.3.3")) == 1


@FEEDS
def test_defect_6_entries_behind_a_gap_or_behind_nonsense_are_not_skipped(
    archive: SimulatedArchive, begin: Begin, version: str
) -> None:
    rig = begin(version=version)
    archive.put(STUDY, instances=1)
    archive.garbage[f"{STUDY}.1.1"] = b'{"00080005": broken'
    archive.skip(10_000)
    archive.put(OTHER, instances=1)
    rig.run(40)
    assert len(rig.studies(OTHER)) == 1


@FEEDS
def test_defect_7_a_study_that_moves_to_another_patient_is_that_patients(
    archive: SimulatedArchive, begin: Begin, version: str
) -> None:
    rig = begin(version=version, subjects=SubjectPolicy("match", ()))
    one, two = rig.server.put(a_patient("ONE")), rig.server.put(a_patient("TWO"))
    archive.put(STUDY, PatientID="ONE")
    rig.run(20)
    assert subject(rig)["reference"] == f"Patient/{one['id']}"
    archive.update(STUDY, PatientID="TWO")
    rig.run(20)
    assert (subject(rig)["reference"], subject(rig)["identifier"]["value"]) == (f"Patient/{two['id']}", "TWO")
    archive.update(STUDY, PatientID="NOBODY-YET")
    rig.run(20)
    assert "reference" not in subject(rig)
    assert subject(rig)["identifier"]["value"] == "NOBODY-YET"


@pytest.mark.parametrize("patients", ["match", "create"])
def test_defect_8_a_patient_of_the_ehr_is_never_written(archive: SimulatedArchive, begin: Begin, patients: str) -> None:
    rig = begin(subjects=SubjectPolicy(patients, ()))
    patient = rig.server.put(a_patient("ONE", name=[{"use": "usual", "family": "Of the EHR"}], gender="female"))
    archive.put(STUDY, PatientID="ONE", PatientName="Of the^Images", PatientSex="M")
    rig.run(20)
    archive.update(STUDY, PatientName="Again^Another", PatientBirthDate="19800101")
    rig.run(20)
    assert subject(rig)["reference"] == f"Patient/{patient['id']}"
    assert rig.server.versions("Patient", patient["id"]) == 1
    assert len(rig.server.all("Patient")) == 1


@pytest.mark.parametrize("value", ["1,2", "1|2", "1$2", "1&name=2"])
def test_defect_9_an_identifier_with_characters_of_the_search_is_found(
    archive: SimulatedArchive, begin: Begin, value: str
) -> None:
    rig = begin()
    patient = rig.server.put(a_patient(value))
    for part in ("1", "2"):
        rig.server.put(a_patient(part))
    archive.put(STUDY, PatientID=value)
    rig.run(20)
    assert subject(rig)["reference"] == f"Patient/{patient['id']}"
    assert len(rig.server.search("Patient", f"{MRN}|{escaped(value)}")) == 1


def test_defect_10_what_matches_several_waits_and_is_delivered_after_the_repair(
    archive: SimulatedArchive, begin: Begin
) -> None:
    rig = begin()
    first, second = rig.server.put(a_patient("ONE")), rig.server.put(a_patient("ONE"))
    archive.put(STUDY, PatientID="ONE")
    archive.put(OTHER, PatientID="TWO")
    rig.run(20)
    assert list(rig.parked()) == [STUDY]
    assert len(rig.studies(OTHER)) == 1
    link = {"other": {"reference": f"Patient/{first['id']}"}, "type": "replaced-by"}
    rig.server.put(second | {"active": False, "link": [link]})
    rig.state.replay(QUEUE, STUDY, rig.now)
    rig.run(5)
    assert subject(rig)["reference"] == f"Patient/{first['id']}"
    assert rig.parked() == {}


@pytest.mark.parametrize("policy", ["status", "delete"])
def test_defect_14_a_deletion_reaches_a_server_that_rewrites_meta_source(
    archive: SimulatedArchive, begin: Begin, policy: str
) -> None:
    rig = begin(StampsSource(), withdrawn=policy)
    archive.put(STUDY)
    rig.run(20)
    archive.delete(STUDY)
    rig.run(20)
    assert [s["status"] for s in rig.studies(STUDY)] == (["entered-in-error"] if policy == "status" else [])
    assert dangling(rig.server) == set()


@pytest.mark.parametrize("nobody", [None, ""])
@pytest.mark.parametrize("patients", ["match", "create", "logical"])
def test_defect_15_a_study_without_a_patient_id_arrives(
    archive: SimulatedArchive, begin: Begin, nobody: str | None, patients: str
) -> None:
    rig = begin(subjects=SubjectPolicy(patients))
    rig.server.put({"resourceType": "Patient", "id": "x", "identifier": [{"system": MRN, "value": "P1"}]})
    archive.put(STUDY, PatientID=nobody)
    rig.run(20)
    assert subject(rig) == {"type": "Patient", "display": "not identified in the images"}
    assert len(rig.server.all("Patient")) == 1


@pytest.mark.parametrize("patients", ["match", "create"])
def test_an_identifier_without_a_system_never_becomes_or_finds_a_patient(
    begin: Begin, archive: SimulatedArchive, patients: str
) -> None:
    rig = begin(FhirFake(client_ids=False), subjects=SubjectPolicy(patients))
    rig.server.put({"resourceType": "Patient", "id": "x", "identifier": [{"value": "ONE"}]})
    archive.put(STUDY, PatientID="ONE", IssuerOfPatientID="AN ISSUER THAT NOBODY MAPPED")
    rig.run(20)
    assert "reference" not in subject(rig)
    assert len(rig.server.all("Patient")) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
@pytest.mark.parametrize("where", ["searches", "writes"])
def test_defect_16_a_server_that_fails_for_a_while_loses_nothing_and_stops_nothing(
    archive: SimulatedArchive, begin: Begin, code: int, where: str
) -> None:
    def fault(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(code) if writes(request) is (where == "writes") else None

    rig = begin()
    rig.server.fault = fault
    archive.put(STUDY)
    rig.run(20)
    assert rig.state.items(parked=True) == []
    archive.put(OTHER)
    rig.run(20)  # the feed is still followed
    rig.server.fault = None
    rig.run(60)
    assert [len(rig.studies(uid)) for uid in (STUDY, OTHER)] == [1, 1]


def test_defect_17_servers_of_both_versions_are_served_and_one_that_is_down_holds_up_nobody(
    archive: SimulatedArchive, begin: Begin
) -> None:
    rig, r5 = begin(), FhirFake(version="5.0.0")
    rig.pipeline.sinks = {"ehr": rig.pipeline.sinks["ehr"], "research": rig.sink(r5, "research")}
    down = True

    def fault(_request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(503) if down else None

    rig.server.fault = fault
    archive.put(STUDY)
    rig.run(20)
    (study,) = r5.all("ImagingStudy")
    assert study["modality"][0]["coding"][0]["code"] == "CT"
    assert (rig.studies(STUDY), status(rig.state, rig.now)["sinks"]) == ([], {"research": 1})
    with pytest.raises(SinkUnavailable):
        rig.now += 600
        rig.pipeline.deliver("ehr", "w")
    down = False
    rig.run(60)
    assert rig.studies(STUDY)[0]["modality"][0]["code"] == "CT"
    assert status(rig.state, rig.now)["sinks"] == {"ehr": 1, "research": 1}


def test_defect_17_partitions_are_one_archive(begin: Begin, archive: SimulatedArchive) -> None:
    archive.partitions_enabled = True
    rig = begin()
    archive.put(STUDY, "north")
    archive.put(STUDY, "south", first=3)
    archive.put(OTHER, "south")
    rig.run(20)
    assert [rig.studies(uid)[0]["numberOfInstances"] for uid in (STUDY, OTHER)] == [4, 2]


def test_defect_17_a_server_that_is_new_gets_what_was_there_before_it(begin: Begin, archive: SimulatedArchive) -> None:
    rig = begin()
    uids = [f"1.2.4.{n}" for n in range(30)]
    for uid in uids:
        archive.put(uid, instances=1)
    rig.run(60)
    new = FhirFake()
    rig.pipeline.sinks = {"ehr": rig.pipeline.sinks["ehr"], "new": rig.sink(new, "new")}
    rig.pipeline.prepare()
    rig.run(60)
    assert len(new.all("ImagingStudy")) == 30
    assert counted(new, lambda asked: asked == "POST ") > 0  # in bundles
