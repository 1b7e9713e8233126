"""Views of many resources at once: the same rows as the evaluator gives, whatever the resources look like."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from cohort import flatten
from cohort.delta import Parked
from cohort.expression import ListOf, Scalar, Struct, Type
from cohort.keys import key
from cohort.schema import view_tables
from cohort.store.files import LocalFiles
from cohort.tables import Tables
from cohort.view_columns import fits, flat_view, structure

TYPES = sorted({table.view.resource for table in view_tables().values()})
RESOURCES = 1500
TEXTS = (
    "a", "", "final", "Patient/p1", "http://x/Patient/p1/_history/2", "Encounter/e1", "ImagingStudy/s1", "Group/g",
    "urn:oid:1.2.3", "urn:dicom:uid", "ACSN", "http://dicom.nema.org/resources/ontology/DCM", "110180", "null", "NaN",
    "2024", "2024-03", "2024-03-01", "2024-3-1", "2024-02-30", "2024-13", "0000-01-01", "0001-01-01", "20240301",
    "2024/03/01", "2024-03-01T10:00:00Z", "2024-03-01T10:00:00.123+01:00", "2024-03-01T10:00:00", "2024-03-01T10:00Z",
    "2024-03-01T24:00:00Z", "2024-03-01T10:00:00.123456789Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00",
    "2024-03-01 10:00:00", "2024-02-30T10:00:00Z", "2024-W10-1T10:00:00Z", "20240301T101010Z", "2024-03-01T10:00:60Z",
    "infinity", "epoch", "aGVsbG8=", "aGVsbG8", "/w==", "AGE=", "YQ==YQ==", "é\"\\\n😀", "x\0y", "[1]", '{"a":1}',
)  # fmt: skip
NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, 2**63, 1.5, 3.0, -0.25, 1e20, 0.1)
WRONG = (None, True, 5, 5.5, "x", [], {}, [None], ["a", "b"], {"code": "x"}, [[]], [{"code": 1}, "x"])


def made(kind: Type, chance: random.Random, wrong: float) -> Any:
    """A value of a type; one in so many is of another type."""
    if chance.random() < wrong:
        return chance.choice(WRONG)
    if isinstance(kind, Struct):
        return {name: made(of, chance, wrong) for name, of in kind.fields if chance.random() < 0.75}
    if isinstance(kind, ListOf):
        return [made(kind.item, chance, wrong) for _ in range(chance.choice((0, 1, 1, 1, 1, 2)))]
    if kind is Scalar.TEXT:
        return chance.choice(TEXTS)
    return chance.random() < 0.5 if kind is Scalar.BOOLEAN else chance.choice(NUMBERS)


def resources(type_: str, seed: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(f"{type_} {seed}")
    rows = [view.row for name, t in view_tables().items() if t.view.resource == type_ and (view := flat_view(name))]
    for number in range(RESOURCES):
        found: dict[str, Any] = {}
        for row in rows:
            found |= made(row, chance, 0.0)
            for name in chance.sample(sorted(found), min(2, len(found))):
                found[name] = made(dict(row.fields).get(name, Scalar.TEXT), chance, chance.choice((0, 0, 0.02, 0.2)))
        yield found | {"resourceType": type_, "id": chance.choice((f"r{number}", "r1"))}


def flattened(folder: Path, name: str, lines: list[bytes]) -> tuple[list[tuple[Any, ...]], list[Parked]]:
    """Rows and what was parked of resources as they stand in a file."""
    folder.mkdir()
    with Tables(LocalFiles(folder / "files"), folder, "t", {}) as tables:
        table, parked = view_tables()[name], list[Parked]()
        described = {"_hash": "BIGINT", "_key": "VARCHAR", "origin": "VARCHAR", "deleted": "BOOLEAN", "json": "VARCHAR"}
        given = (
            {"_hash": key(f"bridge/{n}"), "_key": f"bridge/{n}", "origin": "bridge", "deleted": False, "json": line}
            for n, line in enumerate(text.decode() for text in lines)
        )
        tables.load(flatten.SOURCE, given, described)
        flatten.begin(tables, table.view.resource)
        flatten.rows(tables, name, parked)
        columns = ", ".join(["_hash", "_key", "_origin", *(c.name for c in table.schema.columns)])
        rows = tables.db.execute(f"SELECT {columns} FROM fresh").fetchall()
    return sorted(rows, key=repr), sorted(parked)


def test_every_view_of_the_lake_has_its_sql() -> None:
    assert [name for name in view_tables() if flat_view(name) is None] == []


@pytest.mark.parametrize("type_", TYPES)
def test_duckdb_gives_the_rows_the_evaluator_gives(type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [orjson.dumps(resource) for resource in resources(type_, 1)]
    names = [name for name, table in view_tables().items() if table.view.resource == type_]
    found = {name: flattened(tmp_path / f"sql-{name}", name, lines) for name in names}
    monkeypatch.setattr(flatten, "flat_view", lambda _name: None)
    for name in names:
        wanted_rows, wanted_parked = flattened(tmp_path / f"python-{name}", name, lines)
        rows, parked = found[name]
        assert len(wanted_rows) > 100
        assert [r for r in rows if r not in wanted_rows] == []
        assert rows == wanted_rows
        assert parked == wanted_parked


def test_most_resources_do_not_need_the_evaluator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> list[dict[str, Any]]:
        raise AssertionError("the evaluator was asked")

    monkeypatch.setattr(flatten, "_rows_of", never)
    line = orjson.dumps(
        {
            "resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}, "onsetDateTime": "2024-03",
            "code": {"coding": [{"code": "1"}, {"code": "2", "userSelected": True}]}, "note": [{"text": "x"}],
        }
    )  # fmt: skip
    rows, parked = flattened(tmp_path / "one", "condition", [line])
    assert len(rows) == 2
    assert parked == []


def test_what_is_no_json_or_too_deep_is_left_to_the_evaluator_alone(tmp_path: Path) -> None:
    good = b'{"resourceType":"Observation","id":"g","valueQuantity":{"value":1.5}}'
    deep = b'{"resourceType":"Observation","id":"d","code":{"x":' + b"[" * 300 + b"]" * 300 + b"}}"
    deeper = b'{"resourceType":"Observation","id":"d","code":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    number = b'{"resourceType":"Observation","id":"n","valueQuantity":{"value":NaN}}'
    cut = b'{"resourceType":"Observation","id":"c",'
    rows, parked = flattened(tmp_path / "some", "observation", [good, deep, deeper, number, cut])
    assert [row[1] for row in rows] == ["bridge/0", "bridge/1"]
    assert [name for name, _, _ in parked] == ["Observation/2", "Observation/3", "Observation/4"]


def test_a_structure_fits_when_every_value_is_of_its_type() -> None:
    coding = Struct((("coding", ListOf(Struct((("code", Scalar.TEXT),)))), ("rank", Scalar.INTEGER)))
    assert structure(coding) == '{"coding":[{"code":"VARCHAR"}],"rank":"BIGINT"}'
    assert fits({"coding": [{"code": "VARCHAR", "x": "JSON"}], "rank": "UBIGINT"}, coding)
    assert fits({"coding": "NULL"}, coding)
    assert not fits({"coding": {"code": "VARCHAR"}}, coding)
    assert not fits({"coding": [{"code": "BIGINT"}]}, coding)
    assert not fits({"rank": "DOUBLE"}, coding)
    assert not fits({"valueString": "VARCHAR", "valueQuantity": "JSON"}, coding)


@pytest.mark.parametrize("rows", [0, 1, 2048, 2049, 10_000])
def test_the_halves_of_a_table_are_all_of_it(tmp_path: Path, rows: int) -> None:
    with Tables(LocalFiles(tmp_path / "files"), tmp_path, "t", {}) as tables:
        tables.make("numbers", f"SELECT range AS n FROM range({rows})")
        read = tables.db.execute(f"SELECT n, place FROM {tables.halves('numbers', '*, rowid AS place')} ORDER BY 1")
        assert read.fetchall() == [(n, n) for n in range(rows)]
