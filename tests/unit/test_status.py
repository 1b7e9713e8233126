"""What operators are told of the state: by the command, and by HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.api.operations import status
from bridge.cli import app
from bridge.errors import RefusedByServer
from bridge.model import Receipt
from bridge.ports import sink_queue
from bridge.state import State
from tests.builders import STUDY, headers
from tests.unit.test_sync import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A pipeline whose EHR took two studies and refused a third."""
    state = State(f"sqlite:///{tmp_path / 'state.sqlite'}")
    made = Rig(state)
    studies = [f"{STUDY}.{n}" for n in range(3)]
    made.ehr.refuses[studies[2]] = RefusedByServer("sink ehr: HTTP 422")
    made.a.put(*(headers(study=uid) for uid in studies))
    made.run()
    yield made
    state.close()


def test_status_counts_the_studies_that_each_fhir_server_has(rig: Rig) -> None:
    found = status(rig.state, rig.now)
    assert found["sinks"] == {"ehr": 2}
    assert {q["queue"]: q["parked"] for q in found["queues"]}["sink:ehr"] == 1


def test_a_study_that_was_deleted_there_by_policy_is_not_counted(rig: Rig) -> None:
    rig.state.mark(sink_queue("ehr"), [f"{STUDY}.0"], rig.now)
    (claim,) = rig.state.claim(sink_queue("ehr"), rig.now, 30, 1, "w")
    rig.state.commit_delivered("ehr", [(claim, Receipt("", "", ""))], rig.now)
    assert status(rig.state, rig.now)["sinks"] == {"ehr": 1}


def test_the_command_shows_them_in_its_table_and_as_json(rig: Rig, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["status", "--data-dir", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    (line,) = [line.split() for line in shown.output.splitlines() if "ehr" in line and "sink:" not in line]
    assert line[1::2] == ["ehr", "2"]
    told = json.loads(CliRunner().invoke(app, ["status", "--data-dir", str(tmp_path), "--json"]).stdout)
    assert told["sinks"] == {"ehr": 2}
