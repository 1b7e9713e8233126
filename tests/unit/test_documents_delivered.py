"""What documents say, on its way: to FHIR servers of both versions, and to the lake."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.sinks.lake import LakeSink
from bridge.sources.folder import Folder
from bridge.state import State
from cohort.lake import Lake
from cohort.sandbox import run_sql
from tests import other_documents as others
from tests.archive_fake import FakeSink
from tests.builders import STUDY, as_file
from tests.delivering import Delivery, counted, dangling
from tests.document_rig import DocumentRig
from tests.fhir_fake import FhirFake
from tests.sr_documents import a_document, an_image, as_bytes, planar
from tests.unit.test_ai_results_attached import R5_TYPES, TYPES
from tests.validity import told_wrong

WITH_DOCUMENTS = (*TYPES, "DocumentReference")
SERVERS = {
    "R4": {"types": WITH_DOCUMENTS},
    "R5": {"version": "5.0.0", "types": (*R5_TYPES, "DocumentReference")},
    "ids of its own": {"types": WITH_DOCUMENTS, "client_ids": False},
    "no documents": {"types": TYPES},
}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield state
    state.close()


@pytest.mark.parametrize("how", SERVERS)
def test_a_server_gets_documents_once_and_what_becomes_of_them(state: State, how: str, tmp_path: Path) -> None:
    server = FhirFake(**SERVERS[how])  # type: ignore[arg-type]
    folder = tmp_path / "archive"
    folder.mkdir()
    rig = Delivery(state, server, Folder("folder", folder, state, time.time, settle_s=0))
    (folder / "image").write_bytes(as_file(an_image()))
    documents = {"sr": a_document(planar()), "pdf": others.a_pdf(), "ko": others.key_objects()}
    for name, document in documents.items():
        (folder / name).write_bytes(as_bytes(document))
    rig.run()
    assert not state.items(parked=True)
    assert len(server.all("DiagnosticReport")) == 2
    assert len(server.all("DocumentReference")) == (0 if how == "no documents" else 3)
    assert dangling(server) == set()
    version = "r5" if server.version == "5.0.0" else "r4"
    for kind in (*R5_TYPES, "DocumentReference"):
        for one in server.all(kind):
            assert told_wrong(json.loads(json.dumps(one)), version) == []
    before = counted(server)
    rig.again(STUDY)
    assert counted(server) == before
    for name in documents:
        (folder / name).unlink()
    rig.run()
    kinds = ("DiagnosticReport", "Observation", "DocumentReference")
    assert {one["status"] for kind in kinds for one in server.all(kind)} == {"entered-in-error"}
    for name, document in documents.items():
        (folder / name).write_bytes(as_bytes(document))
    rig.run()
    assert {one["status"] for kind in kinds for one in server.all(kind)} <= {"preliminary", "current"}
    assert not any("_status" in one for kind in kinds for one in server.all(kind))


def test_the_lake_has_the_findings_of_documents(tmp_path: Path) -> None:
    rig, lake = DocumentRig(tmp_path), Lake(tmp_path / "lake")
    rig.pipeline.sinks = {"ehr": FakeSink("ehr"), "lake": LakeSink(lake.append, lambda: None)}
    rig.put("sr.dcm", a_document(planar()))
    rig.put("pdf.dcm", others.a_pdf())
    rig.run()
    rig.state.close()
    lake.publish(datetime(2026, 1, 1, tzinfo=UTC))
    generation = lake.current()
    assert generation is not None
    measured = "SELECT DISTINCT value_number, value_unit FROM imaging_finding WHERE value_number IS NOT NULL"
    found = run_sql(generation, measured)
    assert list(found.rows) == [(8.5, "mm")]
    assert list(run_sql(generation, "SELECT count(*) FROM diagnostic_report").rows) == [(2,)]
