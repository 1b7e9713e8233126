"""A whole bridge meets a patient whose every attribute can be recognised, in whatever goes wrong: no line says them."""

from __future__ import annotations

import io
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest
from pynetdicom import AE

from bridge import config
from bridge.compose import Bridge
from bridge.errors import ProjectError
from bridge.model import Receipt, StudyState
from bridge.telemetry.log_lines import FORMATS
from tests.builders import a_dataset, as_file, write_file
from tests.services.peers import free_port
from tests.web_server import Asked, Reply, web_server

CANARY = "CANARY"
PLANTED = {
    "PatientName": "CANARY^ANNA", "PatientID": "CANARY-1", "PatientComments": "CANARY comment",
    "AccessionNumber": "CANARYACC", "StudyID": "CANARYSTUDY", "StudyDescription": "CANARY study",
    "SeriesDescription": "CANARY series", "ReferringPhysicianName": "CANARY^DOCTOR", "InstitutionName": "CANARY CLINIC",
    "AdmissionID": "CANARYADM", "OtherPatientIDs": "CANARY-2", "OperatorsName": "CANARY^OP",
    "ImageComments": "CANARY\n",
}  # fmt: skip
WRONG = {"PatientBirthDate": "CANARY", "StudyDate": "CANARY", "StudyTime": "CANARY", "PatientSex": "CANARY",
         "Modality": "CANARY\x1b[2J", "TimezoneOffsetFromUTC": "CANARY"}  # fmt: skip
CHATTY = ("httpx", "httpcore", "pynetdicom", "sqlalchemy.engine")
"""Libraries that quote what they are given, once they are asked for details."""

STUDY = "1.2.826.0.1.3680043.10.1561.77"


class Bug:
    """A sink with a bug, whose error quotes what it was given."""

    name, batch_size, wants_rows = "buggy", 2, False

    def deliver(self, states: list[StudyState]) -> list[Receipt | ProjectError | None]:
        raise ValueError(f"cannot deliver {states[0].resources}")


@contextmanager
def everything_logged() -> Iterator[dict[str, io.StringIO]]:
    """All that is logged until the block ends, at every level, in each format. Nothing goes elsewhere."""
    root, level = logging.getLogger(), logging.getLogger().level
    streams = {kind: io.StringIO() for kind in FORMATS}
    handlers = []
    for kind, stream in streams.items():
        handlers.append(logging.StreamHandler(stream))
        handlers[-1].setFormatter(FORMATS[kind]())
        root.addHandler(handlers[-1])
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    for name in ("", *CHATTY):
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield streams
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    for handler in handlers:
        root.removeHandler(handler)


def wait_until(look: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not look():
        assert time.monotonic() < until
        time.sleep(0.1)


def hostile(asked: Asked) -> Reply:
    """A FHIR server that quotes patients in whatever it answers."""
    if asked.path.endswith("/metadata"):
        return Reply(200, orjson.dumps({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}))
    issue = {"severity": "error", "code": "invalid", "diagnostics": f"CANARY^ANNA at {asked.path}"}
    return Reply(422, orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]}), {"X-Why": CANARY})


def plant(inbox: Path) -> None:
    write_file(inbox / "fine.dcm", study=f"{STUDY}.1", **PLANTED)
    write_file(inbox / "wrong.dcm", study=f"{STUDY}.2", **(PLANTED | WRONG))
    write_file(inbox / "one.dcm", study=f"{STUDY}.3", instance=1, **PLANTED)
    write_file(inbox / "other.dcm", study=f"{STUDY}.3", instance=2, **(PLANTED | {"PatientID": "CANARY-9"}))
    content = as_file(a_dataset(study=f"{STUDY}.4", **PLANTED))
    (inbox / "cut.dcm").write_bytes(content[:-60])
    (inbox / "CANARY.txt").write_bytes(b"CANARY is no DICOM")


def send(port: int) -> None:
    entity = AE("CANARYTITLE")
    dataset = a_dataset(study=f"{STUDY}.5", **PLANTED)
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="BRIDGE")
    if association.is_established:
        association.send_c_store(dataset)
        association.release()


@pytest.mark.timeout(300)
def test_no_value_of_a_patient_is_in_a_line_of_any_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _raised: None)
    port = free_port()
    plant(tmp_path / "inbox")
    with web_server() as ehr, everything_logged() as streams, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ehr.answer = hostile
        settings = config.parse({
            "data_dir": str(tmp_path / "data"), "quiet_s": 0.1, "api": {"port": free_port()},
            "sources": [
                {"kind": "folder", "name": "inbox", "path": str(tmp_path / "inbox"), "poll_s": 0.2, "settle_s": 0},
                {"kind": "receiver", "name": "receiver", "port": port, "promiscuous": True},
            ],
            "sinks": [{"kind": "fhir_server", "name": "ehr", "url": f"{ehr.url}/fhir"}],
        })  # fmt: skip
        bridge = Bridge(settings)
        bridge.sinks["buggy"] = Bug()
        with bridge.running():
            send(port)
            with httpx.Client(base_url=settings.public_url, trust_env=False) as client:
                client.get("/fhir/Patient", params={"name": CANARY, "_CANARY": CANARY})
                client.post("/cohort/api/sql", json={"sql": "SELECT 'CANARY' FROM CANARY"})
                client.post("/ai-results", json={"run_id": CANARY, "patient": CANARY})
                client.post("/operations/parked/replay", json={"queue": "CANARY", "key": "CANARY"})
            wait_until(lambda: len(bridge.state.items(parked=True, queue="sink:ehr")) >= 2)
            wait_until(lambda: bridge.state.items(parked=True, queue="sink:buggy"))
            wait_until(lambda: bridge.state.items(parked=True, queue="file:inbox"))
    for kind, stream in streams.items():
        lines = stream.getvalue()
        assert "unexpected ValueError" in lines, kind  # the test has seen the log
        assert CANARY not in lines.upper(), [line for line in lines.splitlines() if CANARY in line.upper()][:5]
