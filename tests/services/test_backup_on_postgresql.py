"""A state in PostgreSQL is saved while several processes work on it, and put back into an empty database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, insert, select, text, update

from bridge import config
from bridge.backup import back_up, restore
from bridge.errors import ConfigError
from bridge.state import State, table_files
from bridge.state.schema import file, metadata, setting
from bridge.state.table_files import Dump, dump, load
from bridge.verify_command import parts
from cohort.lake import Lake
from cohort.store.place import place_of
from tests.backup_drill import drill, silent
from tests.builders import STUDY, write_file
from tests.s3_places import KEY, REGION, SECRET
from tests.services.bridge_process import BridgeProcess
from tests.services.postgresql import fresh_database, running_postgresql
from tests.services.test_roles_on_postgresql import ended
from tests.services.versitygw import running_versitygw

NUMBERS = count(1)
INBOX = '[[sources]]\nkind = "folder"\nname = "inbox"\npath = "{path}"\npoll_s = 0.3\nsettle_s = 0\n'
WITHIN_S = 100.0


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


def database(server: str) -> str:
    return fresh_database(server, f"b{next(NUMBERS)}")


def tables_of(url: str) -> dict[str, list[Any]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {t.name: sorted(map(repr, connection.execute(select(t)))) for t in metadata.sorted_tables}
    engine.dispose()
    return found


@pytest.mark.timeout(400)
def test_the_drill_on_postgresql(server: str, tmp_path: Path) -> None:
    def site(name: str) -> config.Settings:
        return config.embedded(tmp_path / name).model_copy(update={"state_url": database(server)})

    drill(site, tmp_path)


@pytest.mark.timeout(600)
def test_the_drill_with_a_lake_in_a_bucket(server: str, tmp_path: Path) -> None:
    with running_versitygw() as store:

        def site(name: str) -> config.Settings:
            lake = {"endpoint": store.endpoint, "region": REGION, "access_key_id": KEY, "secret_access_key": SECRET}
            raw = {
                "data_dir": str(tmp_path / name),
                "state_url": database(server),
                "lake": {"url": store.bucket()} | lake,
            }
            settings = config.parse(raw)
            Lake(place_of(settings)).check()
            return settings

        drill(site, tmp_path)


@pytest.mark.timeout(400)
def test_by_command_beside_several_processes_all_is_lost_and_comes_back(server: str, tmp_path: Path) -> None:
    url, again, late = database(server), database(server), f"{STUDY}.999"
    inbox, secret = tmp_path / "inbox", "correct-horse-battery"
    sources = INBOX.format(path=inbox)
    with_secret = url.replace("tests@", "tests:${STATE_PASSWORD}@")
    bridge = BridgeProcess(
        tmp_path, sources, {"STATE_PASSWORD": secret}, f'state_url = "{with_secret}"\n', roles=["serve"]
    )

    def command(*words: str) -> tuple[int, Any]:
        line = [str(Path(sys.executable).with_name("bridge")), *words, "--json", "--config", str(bridge.config)]
        done = subprocess.run(line, env=os.environ | {"STATE_PASSWORD": secret}, capture_output=True, timeout=200)
        assert done.returncode in (0, 1), done.stderr.decode()
        return done.returncode, json.loads(done.stdout)

    def fill(studies: range) -> None:
        for number in studies:
            for instance in (1, 2):
                path = inbox / f"{number}-{instance}.dcm"
                write_file(path, study=f"{STUDY}.{number}", instance=instance, PatientID=f"P{number}")

    with ExitStack() as stack:
        fill(range(30))
        stack.callback(bridge.close)
        bridge.start()
        processes = [bridge.beside(*roles) for roles in (["poll", "work"], ["work"], ["deliver"], ["deliver"])]
        for process in processes:
            stack.callback(ended, process)
        bridge.study(f"{STUDY}.3")
        more = threading.Thread(target=fill, args=(range(30, 90),))
        more.start()
        code, told = command("backup", str(tmp_path / "saved"))
        assert (code, told["state"]["kind"]) == (0, "postgresql")
        assert secret not in (tmp_path / "saved" / "backup.json").read_text()
        more.join()
        for process in processes:
            ended(process)
        bridge.kill()
        (inbox / "7-2.dcm").unlink()
        write_file(inbox / "999.dcm", study=late)
        shutil.rmtree(bridge.data_dir)
        bridge.config.write_text(bridge.config.read_text().replace(url.rpartition("/")[2], again.rpartition("/")[2]))
        assert command("restore", str(tmp_path / "saved"))[0] == 0
        bridge.start()
        for roles in (["poll", "work"], ["deliver"]):
            stack.callback(ended, bridge.beside(*roles))
        bridge.study(late)
        bridge.wait_for("the late ones", lambda: bridge.get("/fhir/ImagingStudy", _summary="count")["total"] == 91)
        bridge.study(f"{STUDY}.7", numberOfInstances=1)
        bridge.until_settled()
        code, report = command("reconcile", "--whole")
        assert code == 0, report
        assert command("verify")[0] == 0


def test_every_row_comes_back_and_numbers_go_on(server: str, tmp_path: Path) -> None:
    url, other = database(server), database(server)
    state = State(url)
    values = {"source": "a\tb\n\\N", "path": "é\\", "size": 2**40, "mtime_ns": 1, "study_instance_uid": "",
              "sop_instance_uid": "1"}  # fmt: skip
    with state._db.write() as connection:
        connection.execute(insert(file), [values | {"path": f"{n}é\\"} for n in range(1000)])
        connection.execute(insert(setting).values(name="large", value="x" * 3_000_000))
    state.mark("study", [STUDY], 1.0)
    state.close()
    dumped = dump(url, tmp_path)
    assert {one.table: one.rows for one in dumped.tables}["file"] == 1000
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}
    load(other, tmp_path, Dump.of(json.loads(json.dumps(asdict(dumped)))))
    assert tables_of(other) == tables_of(url)
    state = State(other)
    with state._db.write() as connection:
        assert connection.execute(insert(file).values(**values).returning(file.c.id)).scalar_one() == 1001
    state.close()
    with pytest.raises(ConfigError, match="name an empty one"):
        load(other, tmp_path, dumped)


def test_one_moment_is_saved_whatever_is_written_meanwhile(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, other = database(server), database(server)
    state = State(url)
    before, taken = tables_of(url), []

    written = table_files._written

    def while_others_write(*arguments: Any) -> Any:
        if not taken:
            state.agree("later", "x")
            state.mark("study", [STUDY], 1.0)
        taken.append(written(*arguments))
        return taken[-1]

    monkeypatch.setattr(table_files, "_written", while_others_write)
    dumped = dump(url, tmp_path)
    state.close()
    assert tables_of(url) != before
    load(other, tmp_path, dumped)
    assert tables_of(other) == before


def test_a_newer_schema_an_older_one_and_none_are_told_apart(server: str, tmp_path: Path) -> None:
    url, other, engine = database(server), database(server), None
    with pytest.raises(ConfigError, match="no state"):
        dump(url, tmp_path)
    State(url).close()
    dumped = dump(url, tmp_path)
    with pytest.raises(ConfigError, match="newer program"):
        load(other, tmp_path, replace(dumped, revision="9999"))
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigError, match="newer program"):
        dump(url, tmp_path / "other")
    newer = ("document", "model_call", "reader_report", "stored_document")
    older = tuple(one for one in dumped.tables if one.table not in newer)
    for path in tmp_path.glob("*.gz"):
        if path.name not in {one.file for one in older}:
            path.unlink()
    load(other, tmp_path, Dump("0004", older))
    State(other).close()
    assert tables_of(other)["document"] == []


@pytest.mark.parametrize("damage", ["a flipped bit", "a missing file", "a table too few"])
def test_what_is_damaged_is_not_restored_and_nothing_is_left_in_the_database(
    server: str, tmp_path: Path, damage: str
) -> None:
    url, other = database(server), database(server)
    State(url).close()
    settings = config.embedded(tmp_path / "data").model_copy(update={"state_url": url})
    back_up(settings, tmp_path / "saved", silent)
    (path,) = (tmp_path / "saved" / "state").glob("setting-*")
    if damage == "a flipped bit":
        content = path.read_bytes()
        path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
        damaged = {one.kind: one.damaged for one in parts(config.embedded(tmp_path / "saved"))}
        assert [each["what"] for each in damaged["state"]] == [path.name]
    else:
        path.unlink()
    if damage == "a table too few":
        manifest = json.loads((tmp_path / "saved" / "backup.json").read_text())
        manifest["state"]["tables"] = [t for t in manifest["state"]["tables"] if t["table"] != "setting"]
        (tmp_path / "saved" / "backup.json").write_text(json.dumps(manifest))
    target = config.embedded(tmp_path / "new").model_copy(update={"state_url": other})
    with pytest.raises(ConfigError, match=r"whole|damaged"):
        restore(target, tmp_path / "saved", 0.0, silent)
    engine = create_engine(other)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar() == 0
    engine.dispose()
    assert not (tmp_path / "new" / "state.sqlite").exists()


def test_a_database_that_is_not_empty_is_left_alone(server: str, tmp_path: Path) -> None:
    url = database(server)
    state = State(url)
    state.agree("a name", "a value")
    settings = config.embedded(tmp_path / "data").model_copy(update={"state_url": url})
    back_up(settings, tmp_path / "saved", silent)
    with state._db.write() as connection:
        connection.execute(update(setting).where(setting.c.name == "a name").values(value="newer"))
    target = config.embedded(tmp_path / "new").model_copy(update={"state_url": url})
    with pytest.raises(ConfigError, match="name an empty one"):
        restore(target, tmp_path / "saved", 0.0, silent)
    assert state.agreed("a name") == "newer"
    assert not (tmp_path / "new" / "spool").exists()
    state.close()
