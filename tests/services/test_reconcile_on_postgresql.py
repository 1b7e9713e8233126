"""Reconciliation, backfill and the check of contents, run again on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from bridge.cli import app
from bridge.state import State
from bridge.state.schema import resource_version
from tests.fhir_fake import FhirFake
from tests.services.postgresql import fresh_database, running_postgresql
from tests.unit.test_backfill import *  # noqa: F403  (the same tests, with the fixtures below)
from tests.unit.test_backfill import Old
from tests.unit.test_reconcile import *  # noqa: F403
from tests.unit.test_reconcile import Hospital

NUMBERS = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    return fresh_database(server, f"r{next(NUMBERS)}")


@pytest.fixture
def state(url: str) -> Iterator[State]:
    made = State(url)
    yield made
    made.close()


@pytest.fixture
def hospital(state: State, tmp_path: Path) -> Hospital:
    return Hospital(state, FhirFake(), tmp_path)


@pytest.fixture
def rig(state: State) -> Old:
    return Old(state)


def test_contents_that_are_not_what_was_written_are_found(hospital: Hospital, url: str, tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text(f'data_dir = "."\nstate_url = "{url}"\n')
    command = ["verify", "--json", "--config", str(tmp_path / "bridge.toml")]
    assert CliRunner().invoke(app, command).exit_code == 0
    with hospital.state._db.write() as connection:
        patients = resource_version.c.resource_type == "Patient"
        connection.execute(update(resource_version).where(patients).values(content=b"{}"))
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 1
    assert "Patient/" in found.stdout
