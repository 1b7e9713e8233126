"""Loading NDJSON by DuckDB: what is plain goes past Python, and what is not is judged as if nothing did."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cohort import clinical, ndjson
from cohort.clinical import LoadReport
from cohort.engine.duckdb import connect
from cohort.lake import Lake

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ODD = b"\n".join(
    [
        b'{"resourceType":"Condition","id":"good"}',
        b"",
        b"  ",
        b"{bad",
        b'{"resourceType":"Condition","id":"two"} {"resourceType":"Condition","id":"three"}',
        b'"text"',
        b"[1]",
        b'{"resourceType":"Condition"}',
        b'{"resourceType":"Condition","id":5}',
        b'{"resourceType":"Condition","id":""}',
        b'{"resourceType":"Condition","id":"' + b"x" * 65 + b'"}',
        b'{"resourceType":"Con dition","id":"x"}',
        b'{"resourceType":["Condition"],"id":"x"}',
        b'{"resourceType":"Condition","id":"\xff"}',
        b'{"resourceType":"Condition","id":"\\ud800"}',
        b'{"resourceType":"Condition","id":"esc\\u0061ped"}',
        '{"resourceType":"Condition","id":"\u00e9"}'.encode(),
        b'{"resourceType":"Condition","id":"day","meta":{"lastUpdated":"2024-03-01"}}',
        b'{"resourceType":"Condition","id":"nanoseconds","meta":{"lastUpdated":"2024-03-01T10:00:00.123456789Z"}}',
        b'{"resourceType":"Condition","id":"never","meta":{"lastUpdated":"2024-02-30T10:00:00Z"}}',
        b'{"resourceType":"Condition","id":"number","meta":{"lastUpdated":5}}',
        b'{"resourceType":"Condition","id":"list","meta":[]}',
        b'{"resourceType":"Condition","id":"instant","meta":{"lastUpdated":"2024-03-01T10:00:00.123457+01:00"}}',
        b'{"resourceType":"Condition","id":"cr"}\r',
        b'{"resourceType":"Condition","id":"long","note":[{"text":"' + b"x" * 5_000_000 + b'"}]}',
        b'{"resourceType":"Condition","id":"twice","recordedDate":"2024-01-01"}',
        b'{"resourceType":"Condition","id":"twice","recordedDate":"2024-02-02"}',
        b'{"resourceType":"Condition","id":"last"}',
    ]
)


def loaded(folder: Path, files: Mapping[str, bytes]) -> tuple[LoadReport, list[Any], list[Any]]:
    """What loading tells, what resources the lake has then, and the rows of a table."""
    (folder / "in").mkdir(parents=True)
    for name, content in files.items():
        (folder / "in" / name).write_bytes(content)
    lake = Lake(folder / "lake")
    report = clinical.load(sorted((folder / "in").iterdir()), lake, NOW)
    lake.publish(NOW)
    lake.compact(NOW, everything=True)
    found = lake.current()
    assert found is not None
    (layer,) = lake._generations.head().tables["resource_Condition"]["layers"]
    with ndjson.duckdb.connect() as db:
        file = folder / "lake" / "files" / layer["file"]
        held = db.execute(f"SELECT _hash, _key, _revision, id, deleted FROM '{file}' ORDER BY _key").fetchall()
    rows = connect(found).execute("SELECT * FROM condition ORDER BY condition_id").fetchall()
    assert list((folder / "lake" / "delta").iterdir()) == []
    return report, held, rows


def without_folder(report: LoadReport) -> LoadReport:
    parked = tuple((Path(file).name, line, reason) for file, line, reason in report.parked)
    return LoadReport(report.counts, report.deleted, parked, report.parked_lines)


@pytest.mark.parametrize("name", ["x.ndjson", "x.ndjson.gz", "x[1]*.ndjson"])
def test_odd_lines_are_judged_as_if_python_read_them_all(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = gzip.compress(ODD) if name.endswith(".gz") else ODD
    report, held, rows = loaded(tmp_path / "a", {name: content})
    monkeypatch.setattr(ndjson, "convert", lambda *_: None)
    wanted_report, wanted_held, wanted_rows = loaded(tmp_path / "b", {name: content})
    assert without_folder(report) == without_folder(wanted_report)
    assert report.parked_lines == 13
    assert held == wanted_held
    assert rows == wanted_rows
    assert next(row[7] for row in rows if row[0] == "twice").isoformat() == "2024-02-02"


def test_a_plain_file_is_not_read_by_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clinical, "_resource_lines", None)
    lines = b"".join(b'{"resourceType":"Condition","id":"c%d","meta":{}}\n' % n for n in range(1000))
    with pytest.raises(TypeError):
        loaded(tmp_path / "a", {"x.ndjson": lines + b"{bad\n"})
    report, held, _ = loaded(tmp_path / "b", {"x.ndjson": lines})
    assert report.counts == {"Condition": 1000}
    assert len(held) == 1000


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_what_comes_before_damage_in_a_gzip_file_is_loaded(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clinical, "PART_BYTES", 10_000)
    monkeypatch.setattr(clinical, "BLOCK_BYTES", 1_000)
    lines = b"".join(b'{"resourceType":"Condition","id":"c%d"}\n' % n for n in range(1000))
    content = bytearray(gzip.compress(lines))
    content = content[:-8] if damage == "cut" else content[:-6] + bytes([content[-6] ^ 255]) + content[-5:]
    report, held, _ = loaded(tmp_path, {"x.ndjson.gz": bytes(content)})
    assert len(held) >= 900
    ((_, line, reason),) = report.parked
    assert (line, "damaged" in reason) == (0, True)


def test_lines_are_numbered_through_the_parts_of_a_gzip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clinical, "PART_BYTES", 10_000)
    monkeypatch.setattr(clinical, "BLOCK_BYTES", 1_000)
    lines = [b'{"resourceType":"Condition","id":"c%d"}' % n for n in range(1000)]
    lines[899] = b"{bad"
    report, _, _ = loaded(tmp_path, {"x.ndjson.gz": gzip.compress(b"\n".join(lines))})
    assert [line for _, line, _ in report.parked] == [900]
