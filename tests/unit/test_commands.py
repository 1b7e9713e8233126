from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.core import TyperGroup
from typer.main import get_command

import bridge.cli
import cohort.cli
from bridge.cli import COLLECT_AFTER, main
from bridge.sources.manifest import Manifest, Verdict
from hospital import generate
from tests.authorization_server import key_file
from tests.builders import STUDY, write_file
from tests.policies import EVERYTHING_TOML
from tests.services.peers import free_port

BIN = Path(sys.executable).parent


def command(name: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / name), *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=cwd)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("commands")
    generate(folder / "hospital", patients=24, today=date(2026, 11, 24))
    loaded = command("cohort", "load", folder / "hospital" / "clinical", "--lake", folder / "lake")
    assert loaded.returncode == 0, loaded.stderr
    assert "24 Patient" in loaded.stdout
    (folder / "bridge.toml").write_text(EVERYTHING_TOML)
    yield folder / "lake"


def commands(group: Any, words: list[str]) -> Iterator[tuple[list[str], bool]]:
    """Every command of a program, and whether it has commands of its own."""
    yield words, True
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, [*words, name])
        else:
            yield [*words, name], False


COMMANDS = [
    pytest.param(name, words, group, id=" ".join([name, *words]))
    for name, app in (("bridge", bridge.cli.app), ("cohort", cohort.cli.app))
    for words, group in commands(get_command(app), [])
]


@pytest.mark.parametrize(("name", "words", "group"), COMMANDS)
def test_every_command_has_help_with_an_example(name: str, words: list[str], group: bool) -> None:
    """Each in a process of its own: its module has to be imported without any other."""
    shown = command(name, *words, "--help")
    assert shown.returncode == 0
    assert group or "Example:" in shown.stdout


def test_all_commands_were_found() -> None:
    assert len(COMMANDS) > 50


def test_a_misspelt_command_is_told_what_was_meant_without_importing_any() -> None:
    asked = (
        "import sys, bridge.cli; sys.argv = ['bridge', 'stats']\ntry: bridge.cli.main()\nfinally: print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", asked, "stats"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "Did you mean 'status'?" in ended.stderr
    assert not {"bridge.compose", "bridge.state", "pydicom"} & set(ended.stdout.split())


def test_sql_prints_json_csv_and_tables(lake: Path, tmp_path: Path) -> None:
    sql = "SELECT gender, count(*) AS n FROM patient GROUP BY 1 ORDER BY 1"
    seen = ("--lake", lake, "--config", lake.parent / "bridge.toml")
    plain = orjson.loads(command("cohort", "sql", sql, *seen, "--json").stdout)
    assert sum(r["n"] for r in plain["rows"]) == 24
    assert command("cohort", "sql", sql, *seen, "--format", "csv").stdout.startswith("gender,n")
    assert "gender" in command("cohort", "sql", sql, *seen).stdout
    out = tmp_path / "a.parquet"
    assert command("cohort", "sql", sql, *seen, "--format", "parquet", "--output", out).returncode == 0
    assert out.read_bytes().startswith(b"PAR1")


def test_without_settings_the_commands_count_and_the_log_tells_who_asked(lake: Path) -> None:
    sql = "SELECT count(DISTINCT patient_id) AS n FROM patient"
    counted = command("cohort", "sql", sql, "--lake", lake, "--json")
    assert orjson.loads(counted.stdout)["rows"] == [{"n": 20}]
    assert "Note: groups of fewer than 10 patients" in counted.stderr
    refused = command("cohort", "sql", "SELECT * FROM patient", "--lake", lake)
    assert refused.returncode == 2
    assert "rows may not be seen" in refused.stderr
    logged = orjson.loads(command("cohort", "log", "--lake", lake, "--json", "--last", "2").stdout)
    assert [(e["what"], e["event"], e["door"]) for e in logged] == [
        (sql, "answered", "cli"),
        ("SELECT * FROM patient", "failed", "cli"),
    ]
    assert "NotAllowed" in command("cohort", "log", "--lake", lake).stdout


def test_questions_and_tables_describe_themselves(lake: Path) -> None:
    listed = orjson.loads(command("cohort", "questions", "--json").stdout)
    assert "osteosarcoma-ct" in {q["name"] for q in listed}
    tables = orjson.loads(command("cohort", "tables", "--json", "--lake", lake).stdout)
    assert all(c["name"] and c["type"] and c["source"] for t in tables for c in t["columns"])
    assert "slice_thickness_mm" in command("cohort", "tables", "dicom_series").stdout


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("cohort", ["ask", "nothing"], "no question 'nothing'; known:"),
        ("cohort", ["ask", "osteosarcoma-ct", "--param", "older_than_years"], "--param: found"),
        ("cohort", ["ask", "osteosarcoma-ct", "--param", "older_than_years=old"], "parameter older_than_years"),
        ("cohort", ["ask", "osteosarcoma-ct", "--date", "soon"], "--date: found 'soon'"),
        ("cohort", ["sql", "DROP TABLE x"], "SELECT"),
        ("cohort", ["sql", "SELECT 1", "--format", "xml"], "--format: found 'xml'"),
        ("cohort", ["tables", "nope"], "no table 'nope'"),
        ("cohort", ["load", "/nowhere/at/all"], "no such file or folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(lake: Path, name: str, words: list[str], told: str) -> None:
    done = command(name, *words, *([] if "load" in words else ["--lake", lake]))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lake_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = command("cohort", "sql", "SELECT 1", "--lake", tmp_path / "none")
    assert done.returncode == 2
    assert "no data in" in done.stderr


def test_bad_lines_are_told_and_the_exit_code_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.ndjson").write_bytes(b'{"resourceType":"Patient","id":"1"}\nnonsense\n')
    done = command("cohort", "load", tmp_path / "x.ndjson", "--lake", tmp_path / "lake")
    assert done.returncode == 1
    assert "x.ndjson line 2: not JSON" in done.stderr
    (parked,) = orjson.loads(command("cohort", "parked", "--lake", tmp_path / "lake", "--json").stdout)
    assert (parked["file"], parked["line"]) == (str(tmp_path / "x.ndjson"), 2)


def test_a_generation_is_kept_asked_again_and_forgotten(tmp_path: Path) -> None:
    lake, file, settings = tmp_path / "lake", tmp_path / "x.ndjson", tmp_path / "bridge.toml"
    settings.write_text(EVERYTHING_TOML)

    def count(*more: str) -> Any:
        told = orjson.loads(
            command(
                "cohort", "sql", "SELECT count(*) n FROM patient", "--lake", lake, "--config", settings, "--json", *more
            ).stdout
        )
        return told["rows"][0]["n"], told["generation"]

    for n in (1, 2):
        file.write_bytes(b'{"resourceType":"Patient","id":"%d"}\n' % n)
        assert command("cohort", "load", file, "--lake", lake).returncode == 0
        if n == 1:
            assert "as paper" in command("cohort", "generations", "keep", "paper", "--lake", lake).stdout
    assert count() == (2, "g000002")
    assert count("--generation", "paper") == count("-g", "g000001") == (1, "g000001")
    listed = orjson.loads(command("cohort", "generations", "list", "--lake", lake, "--json").stdout)
    assert [(one["id"], one["names"]) for one in listed] == [("g000002", []), ("g000001", ["paper"])]
    assert command("cohort", "compact", "--lake", lake).stdout == "Compacted\n"
    assert count()[0] == 2
    assert command("cohort", "generations", "forget", "paper", "--lake", lake).returncode == 0
    assert "none is kept" in command("cohort", "sql", "SELECT 1", "--lake", lake, "-g", "paper").stderr


def test_init_writes_a_file_that_check_accepts_and_does_not_overwrite(tmp_path: Path) -> None:
    assert command("bridge", "init", cwd=tmp_path).returncode == 0
    assert command("bridge", "check", "--config", "bridge.toml", cwd=tmp_path).returncode == 0
    again = command("bridge", "init", cwd=tmp_path)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_a_wrong_setting_stops_run_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("quiet = 3\n")
    done = command("bridge", "run", "--config", tmp_path / "b.toml")
    assert done.returncode == 2
    assert "quiet: unknown setting" in done.stderr


def test_a_port_in_use_stops_run_with_its_number(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "b.toml").write_text(f"[api]\nport = {port}\n")
        done = command("bridge", "run", "--config", tmp_path / "b.toml")
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr


def test_run_serves_stops_cleanly_and_status_and_parked_tell(tmp_path: Path) -> None:
    from tests.services.bridge_process import BridgeProcess

    sources = '[[sources]]\nkind = "folder"\nname = "in"\npath = "in"\npoll_s = 0.2\nsettle_s = 0\n'
    sources += f'[[sources]]\nkind = "receiver"\nname = "rx"\nport = {free_port()}\n'
    sources += '[[sources]]\nkind = "folder"\nname = "gone"\npath = "nowhere"\n'
    bridge = BridgeProcess(tmp_path, sources, {})
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "letter.txt").write_text("no image " * 50)
    write_file(tmp_path / "in" / "a.dcm")
    try:
        bridge.start()
        bridge.study(STUDY, numberOfInstances=1)
        config = tmp_path / "bridge.toml"
        status = orjson.loads(command("bridge", "status", "--config", config, "--json").stdout)
        queues: dict[str, Any] = {q["queue"]: q for q in status["queues"]}
        assert queues["poll"]["error"].startswith("source gone: its folder does not exist")
        assert status["resources"]["ImagingStudy"] == 1
        listed = command("bridge", "parked", "list", "--config", config, "--json")
        assert listed.returncode == 1
        (item,) = orjson.loads(listed.stdout)
        assert (item["queue"], item["key"]) == ("file:in", "letter.txt")
        assert command("bridge", "parked", "replay", "file:in", "letter.txt", "--config", config).returncode == 0
        shown = orjson.loads(command("bridge", "study", STUDY, "--config", config).stdout)
        assert [r["resource"]["resourceType"] for r in shown["resources"]] == ["Patient", "ImagingStudy"]
        second = command("bridge", "run", "--config", config)
        assert second.returncode == 2
        assert "in use by another bridge process" in second.stderr
        assert bridge.get("/")["cohort"].endswith("/cohort/")
        imported = command(
            "cohort", "load", "--from-server", f"{bridge.get('/')['fhir']}", "--lake", tmp_path / "other"
        )
        assert "1 ImagingStudy" in imported.stdout, imported.stderr
        os.kill(bridge.pid, signal.SIGUSR1)
        bridge.wait_for("where its threads stand", lambda: "bridge/loops.py" in bridge.log)
        assert bridge.stop() == 0
        assert "Test^Eva" not in bridge.log
        assert "P1" not in bridge.log
    finally:
        bridge.close()


def test_associations_are_listed_and_shown(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "spool" / "receiver" / "associations", 1e9, {"peer": "127.0.0.1"})
    manifest.add(Verdict.REFUSED, 0xA700, {"sop_instance_uid": "1.2.3", "reason": "no room"})
    manifest.end(1e9 + 1, "released")
    listed = command("bridge", "associations", "list", "--json", "--data-dir", tmp_path)
    assert json.loads(listed.stdout)[0]["refused"] == 1
    shown = command("bridge", "associations", "show", manifest.id, "--data-dir", tmp_path)
    assert json.loads(shown.stdout)["objects"][0]["reason"] == "no room"
    assert command("bridge", "associations", "show", "../x", "--data-dir", tmp_path).returncode == 2


def test_jwks_prints_public_keys_alone_and_check_finds_a_key_that_cannot_be_used(tmp_path: Path) -> None:
    config_file = tmp_path / "bridge.toml"
    text = '[[sinks]]\nkind = "fhir_server"\nname = "{0}"\nurl = "https://ehr.example/fhir"\n'
    text += 'smart = {{ client_id = "bridge", key = "{1}.pem", key_id = "{0}-1", scope = "system/*.cruds" }}\n'
    config_file.write_text(text.format("ehr", "RS384") + text.format("registry", "ES384"))
    assert "smart.key: cannot be read" in command("bridge", "check", "--config", config_file).stderr
    for algorithm in ("RS384", "ES384"):
        key_file(tmp_path, algorithm)
    assert command("bridge", "check", "--config", config_file).returncode == 0
    shown = command("bridge", "jwks", "--config", config_file)
    keys = orjson.loads(shown.stdout)["keys"]
    assert [(k["kid"], k["kty"], k["alg"], k["use"]) for k in keys] == [
        ("ehr-1", "RSA", "RS384", "sig"),
        ("registry-1", "EC", "ES384", "sig"),
    ]
    assert not [k for k in keys if {"d", "p", "q"} & set(k)]
    config_file.write_text(text.format("ehr", "RS384") + text.replace("{0}-1", "ehr-1").format("registry", "ES384"))
    assert "smart.key_id: another server has it" in command("bridge", "jwks", "--config", config_file).stderr
    assert "none signs in with a key" in command("bridge", "jwks").stderr


def test_the_bridge_looks_for_cycles_less_often_than_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bridge", "--version"])
    before = gc.get_threshold()
    try:
        with pytest.raises(SystemExit):
            main()
        assert gc.get_threshold()[0] == COLLECT_AFTER > before[0]
    finally:
        gc.set_threshold(*before)
