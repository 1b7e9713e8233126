"""One byte flipped anywhere in what is kept is found, and named."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from bridge import config
from bridge.cli import app
from bridge.sources.association import file_prefix
from bridge.sources.preamble import preamble, problem
from bridge.sources.spool import Spool, data_set_digest
from bridge.state.schema import resource_version
from bridge.state.seal import damage
from bridge.verify_command import parts
from tests.builders import STUDY, a_dataset, as_file, headers
from tests.fhir_fake import FhirFake
from tests.unit.test_reconcile import STUDIES, Hospital, State

SEED = 20261126
FLIPS = 60


def flipped(content: bytes, at: int, random_: random.Random) -> bytes:
    return content[:at] + bytes([content[at] ^ (1 << random_.randrange(8))]) + content[at + 1 :]


def damaged(data_dir: Path) -> dict[str, list[str]]:
    """kind → what is damaged."""
    return {one.kind: [each["what"] for each in one.damaged] for one in parts(config.embedded(data_dir))}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with everything that a bridge keeps."""
    folder = tmp_path_factory.mktemp("kept")
    state = State(f"sqlite:///{folder / 'state.sqlite'}")
    hospital = Hospital(state, FhirFake(), folder)
    hospital.real_lake.publish(datetime.now(UTC))
    hospital.a.put(headers(study=STUDIES[0], series=1, instance=5))
    hospital.run()
    hospital.real_lake.publish(datetime.now(UTC))
    hospital.real_lake.keep("paper", "g000001")
    hospital.real_lake.append([{"kind": "nothing"}])
    state.close()
    spool = Spool(folder / "spool" / "receiver")
    for instance in range(3):
        dataset = a_dataset(instance=instance)
        whole = as_file(dataset)
        _keep(spool, preamble(whole) + whole[128:], dataset.SOPInstanceUID)
    return folder


def _keep(spool: Spool, content: bytes, sop_instance_uid: str) -> Path:
    part = spool.part()
    part.write_bytes(content)
    return spool.keep(part, STUDY, sop_instance_uid, data_set_digest(part)).path


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    shutil.copytree(kept, tmp_path / "data")
    return tmp_path / "data"


def test_what_was_not_touched_is_whole(copy: Path) -> None:
    found = list(parts(config.embedded(copy)))
    assert damaged(copy) == {"spool": [], "state": [], "lake": []}
    assert [one.looked_at for one in found][:2] == [3, 1]
    assert found[2].looked_at == len([p for p in (copy / "lake").rglob("*") if p.is_file() and p.suffix != ".lock"])
    shown = CliRunner().invoke(app, ["verify", "--data-dir", str(copy)])
    assert (shown.exit_code, shown.stdout.count("as it was written")) == (0, 3)


def test_every_flip_in_an_object_of_the_spool_is_found(copy: Path) -> None:
    random_ = random.Random(SEED)
    path = sorted((copy / "spool").rglob("*.dcm"))[0]
    content = path.read_bytes()
    places = {*range(0, 400), *(random_.randrange(len(content)) for _ in range(FLIPS))}
    for at in places:
        path.write_bytes(flipped(content, at, random_))
        assert problem(path), at
    assert damaged(copy)["spool"] == [str(path.relative_to(copy / "spool"))]


@pytest.mark.parametrize("folder", ["files", "generations", "delta"])
def test_every_flip_in_a_file_of_the_lake_is_found(copy: Path, folder: str) -> None:
    random_ = random.Random(SEED)
    paths = sorted(p for p in (copy / "lake" / folder).rglob("*") if p.is_file())
    assert paths
    for _ in range(FLIPS):
        path = random_.choice(paths)
        content = path.read_bytes()
        path.write_bytes(flipped(content, random_.randrange(len(content)), random_))
        assert damaged(copy)["lake"] == [str(path.relative_to(copy / "lake"))]
        path.write_bytes(content)


def test_every_flip_in_current_is_found(copy: Path) -> None:
    path = copy / "lake" / "CURRENT"
    content = path.read_bytes()
    for at in range(len(content)):
        for bit in range(8):
            path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
            assert damaged(copy)["lake"] == ["CURRENT"]


def test_a_file_of_the_lake_that_is_missing_is_found(copy: Path) -> None:
    path = sorted((copy / "lake" / "files").iterdir())[0]
    path.unlink()
    assert damaged(copy)["lake"] == [f"files/{path.name}"]


def contents(path: Path) -> list[str] | None:
    """All that a database says; None when it cannot be read."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.text_factory = bytes
            tables = [r[0].decode() for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return [repr(row) for t in sorted(tables) for row in connection.execute(f'SELECT * FROM "{t}"')]
    except (sqlite3.Error, UnicodeDecodeError):
        return None


def test_every_flip_that_changes_what_the_state_says_is_found(copy: Path) -> None:
    random_ = random.Random(SEED)
    path = copy / "state.sqlite"
    content, said = path.read_bytes(), contents(path)
    changed = 0
    for _ in range(600):
        path.write_bytes(flipped(content, random_.randrange(len(content)), random_))
        if contents(path) != said:
            changed += 1
            assert list(damage(path))
    assert changed > 30


def test_a_changed_value_is_named_by_table_and_row_alone(copy: Path) -> None:
    path = copy / "state.sqlite"
    content = path.read_bytes()
    at = content.index(b'"resourceType":"Patient"')
    path.write_bytes(content[:at] + b'"resourceType":"patient"' + content[at + 24 :])
    told = list(damage(path))
    assert told
    assert all("was changed" in one and "table" in one for one in told)
    shown = CliRunner().invoke(app, ["verify", "--data-dir", str(copy), "--json"])
    assert shown.exit_code == 1
    assert json.loads(shown.stdout)[1]["damaged"]


def test_a_database_that_is_none_any_more_is_told_by_every_command(copy: Path) -> None:
    path = copy / "state.sqlite"
    path.write_bytes(b"x" * 100 + path.read_bytes()[100:])
    assert damaged(copy)["state"] == ["state.sqlite"]
    assert "bridge verify" in str(CliRunner().invoke(app, ["status", "--data-dir", str(copy)]).exception)


def test_files_of_earlier_versions_are_checked_by_their_names(tmp_path: Path) -> None:
    whole = as_file(a_dataset())
    path = _keep(Spool(tmp_path), bytes(128) + whole[128:], "1.2.3")
    assert problem(path) == ""
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert problem(path) == "its data set was changed"


def test_what_a_receiver_writes_has_a_preamble_that_is_checked() -> None:
    head = file_prefix("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", "CT1")
    assert head[:64] == bytes(64)
    assert preamble(head) == head[:128]
    assert any(head[64:96])


def test_contents_are_held_to_their_digests_in_any_database(copy: Path) -> None:
    state = State(f"sqlite:///{copy / 'state.sqlite'}")
    assert all(fine for _, fine in state.contents())
    with state._db.write() as connection:
        patients = resource_version.c.resource_type == "Patient"
        connection.execute(update(resource_version).where(patients).values(content=b"{}"))
    damaged = [key for key, fine in state.contents() if not fine]
    assert {key.partition("/")[0] for key in damaged} == {"Patient"}
    state.close()


def test_a_damaged_lake_is_repaired_when_asked(copy: Path) -> None:
    (newest,) = sorted((copy / "lake" / "files").glob("resource_Patient-*"))[-1:]
    newest.write_bytes(flipped(newest.read_bytes(), 40, random.Random(SEED)))
    shown = CliRunner().invoke(app, ["verify", "--repair", "--data-dir", str(copy)])
    assert (shown.exit_code, "load again what was loaded of Patient" in shown.stderr) == (0, True)
    assert damaged(copy)["lake"] == []
    state = State(f"sqlite:///{copy / 'state.sqlite'}")
    assert {item.key for item in state.items() if item.queue == "sink:lake"} == set(STUDIES)
    state.close()
