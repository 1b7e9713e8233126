from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli import app
from bridge.sinks.fhir_server import FhirServerSink
from bridge.state import State
from tests.builders import headers
from tests.contract.fhir_sink import a_study
from tests.fhir_fake import URL, FhirFake
from tests.unit.test_sync import Rig

SETTINGS = f'[[sinks]]\nkind = "fhir_server"\nname = "ehr"\nurl = "{URL}"\n'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FhirFake:
    fake = FhirFake()

    def made(_settings: object, _closed: object) -> FhirServerSink:
        return FhirServerSink("ehr", URL, transport=fake)

    monkeypatch.setattr("bridge.dedupe_command.fhir_server_sink", made)
    return fake


def test_doubles_are_found_repaired_and_marked_for_delivery(tmp_path: Path, server: FhirFake) -> None:
    (tmp_path / "bridge.toml").write_text(f'data_dir = "data"\n{SETTINGS}', "utf-8")
    (tmp_path / "data").mkdir()
    uid = a_study()
    state = State(f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}")
    rig = Rig(state)
    rig.a.put(headers(study=uid), headers(study=a_study()))
    rig.run()
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
    for id_ in ("a", "b"):
        server.put({"resourceType": "ImagingStudy", "id": id_, "identifier": [identifier], "status": "available"})
    called = ["dedupe", "--config", str(tmp_path / "bridge.toml"), "--json"]
    found = CliRunner().invoke(app, called)
    assert found.exit_code == 1, found.output
    (double,) = json.loads(found.stdout)
    assert (double["study_instance_uid"], len(double["resources"])) == (uid, 2)
    assert len(server.all("ImagingStudy")) == 2
    repaired = CliRunner().invoke(app, [*called, "--repair"])
    assert repaired.exit_code == 0
    assert {r["action"] for r in json.loads(repaired.stdout)[0]["resources"]} == {"kept", "deleted"}
    assert [i.key for i in state.items(queue="sink:ehr")] == [uid]
    assert CliRunner().invoke(app, called).exit_code == 0
    state.close()


def test_a_sink_that_is_not_configured_is_told(tmp_path: Path, server: FhirFake) -> None:
    (tmp_path / "bridge.toml").write_text(SETTINGS, "utf-8")
    result = CliRunner().invoke(app, ["dedupe", "--config", str(tmp_path / "bridge.toml"), "--sink", "other"])
    assert result.exit_code != 0
    assert server.requests == []
