"""Copies of large files in DuckDB's own form: the same rows in the same order, and nothing depends on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from cohort import compaction
from cohort.catalogue import questions
from cohort.engine.duckdb import connect
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.layers import Layer
from cohort.mend import mend
from cohort.sandbox import ask, run_sql
from cohort.schema import catalogue
from cohort.stored import columns_of
from cohort.verified import checked
from tests.hospital_lake import NOW, HospitalLake, hospital_lake
from tests.s3_places import running_moto
from tests.unit.test_lake import gone, line
from tests.unit.test_layers import contents

COUNT = "SELECT count(*), count(DISTINCT condition_id) FROM condition"


@pytest.fixture(autouse=True)
def _few_rows_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "COPIED_ROWS", 10)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> HospitalLake:
    return hospital_lake(tmp_path_factory.mktemp("hospital"), patients=40)


def current(lake: Lake) -> Generation:
    found = lake.current()
    assert found is not None
    return found


def layers(lake: Lake, table: str = "condition") -> tuple[Layer, ...]:
    return current(lake).tables[table].layers


def without_copies(generation: Generation) -> Generation:
    tables = {
        name: replace(table, layers=tuple(replace(one, copy=None) for one in table.layers))
        for name, table in generation.tables.items()
    }
    return replace(generation, tables=tables)


def conditions(tmp_path: Path, count: int) -> Lake:
    """A lake of so many conditions, of ten patients, with a copy."""
    lake = Lake(tmp_path)
    subjects = [{"reference": f"Patient/p{n}"} for n in range(10)]
    lake.append([line("Condition", f"c{n}", subject=subjects[n % 10]) for n in range(count)])
    lake.publish(NOW)
    assert lake.compact(NOW)
    return lake


def test_a_copy_has_the_rows_of_its_file_in_their_order(tmp_path: Path) -> None:
    lake = conditions(tmp_path, 20_000)  # three row groups
    (one,) = layers(lake)
    assert one.copy is not None
    columns = ", ".join(column.name for column in catalogue()["condition"].columns)
    with duckdb.connect() as db:
        db.execute(f"ATTACH '{one.copy}' AS c (READ_ONLY)")
        held = f"SELECT file_row_number AS n, {columns} FROM read_parquet('{one.file}', file_row_number = true)"
        copied = f"SELECT rowid AS n, {columns} FROM c.copied"
        assert db.execute(f"SELECT count(*) FROM ({held})").fetchone() == (20_000,)
        for one_, other in ((held, copied), (copied, held)):
            assert db.execute(f"{one_} EXCEPT ALL {other}").fetchall() == []


def test_a_file_gets_its_copy_once_and_is_not_written_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append([line("Condition", f"c{n}") for n in range(compaction.COPIED_ROWS)])
    lake.append([line("Encounter", f"e{n}") for n in range(compaction.COPIED_ROWS - 1)])
    lake.publish(NOW)
    (before,), few = layers(lake), layers(lake, "encounter")
    assert lake.compact(NOW)
    assert replace(layers(lake)[0], copy=None) == before
    assert layers(lake)[0].copy
    assert layers(lake, "encounter") == few
    assert current(lake).tables["condition"].rows == compaction.COPIED_ROWS
    assert not lake.compact(NOW)
    assert not lake.compact(NOW, everything=True)


def test_a_table_from_before_a_column_waits_for_the_publish_that_makes_it_anew() -> None:
    layers = [{"file": "large", "rows": compaction.COPIED_ROWS}]
    columns = list(columns_of("condition"))
    wanted = compaction.due({"condition": {"columns": columns, "layers": layers}}, everything=False)
    assert wanted == {"condition": layers}
    assert not compaction.due({"condition": {"columns": columns[1:], "layers": layers}}, everything=False)


def test_what_is_published_later_is_not_seen_in_the_copy(tmp_path: Path) -> None:
    lake = conditions(tmp_path, 1000)
    before = current(lake)
    lake.append([gone("Condition", "c7", 5), line("Condition", "c8", 5), line("Condition", "new", 5)])
    lake.publish(NOW)
    copied, _ = layers(lake)
    assert copied.copy == before.tables["condition"].layers[0].copy
    assert copied.gone_rows == 2
    assert run_sql(current(lake), COUNT).rows == ((1000, 1000),)
    assert contents(current(lake)) == contents(without_copies(current(lake)))
    assert run_sql(before, COUNT).rows == ((1000, 1000),)
    assert run_sql(before, "SELECT count(*) FROM condition WHERE condition_id = 'c7'").rows == ((1,),)


def test_what_is_published_while_a_copy_is_made_is_not_seen_in_it(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append([line("Condition", f"c{n}") for n in range(1000)])
    lake.publish(NOW)

    def meanwhile(stage: str) -> None:
        if stage == "compacted":
            other = Lake(tmp_path)
            other.append([gone("Condition", "c7", 5), line("Condition", "c8", 5)])
            other.publish(NOW)

    assert Lake(tmp_path, meanwhile).compact(NOW)
    copied, _ = layers(lake)
    assert copied.copy
    assert copied.gone_rows == 2
    assert run_sql(current(lake), COUNT).rows == ((999, 999),)


def test_copies_go_with_their_files(tmp_path: Path) -> None:
    lake = conditions(tmp_path, 1000)
    first = layers(lake)[0].copy
    lake.append([line("Condition", f"c{n}", 5) for n in range(500)])
    lake.publish(NOW)
    lake.compact(NOW, everything=True)
    second = layers(lake)[0].copy
    assert first
    assert second
    assert first.exists()  # the generation before can be asked
    lake.append([line("Condition", "c1", 6)])
    lake.publish(NOW)
    for path in (tmp_path / "generations").iterdir():
        if path.stem != current(lake).id:
            path.unlink()
    lake.append([line("Condition", "c1", 7)])
    lake.publish(NOW)
    assert set((tmp_path / "files").glob("condition-*.duckdb")) == {second}
    assert run_sql(current(lake), COUNT).rows == ((1000, 1000),)


def test_every_ready_question_has_the_same_answer_of_copies(hospital: HospitalLake, tmp_path: Path) -> None:
    lake = hospital.copy(tmp_path).lake
    lake.compact(NOW, everything=True)
    found = current(lake)
    assert {name for name, table in found.tables.items() if any(one.copy for one in table.layers)} >= {
        "condition", "condition_by_code", "imaging_study", "medication_request",
    }  # fmt: skip
    assert contents(found) == contents(without_copies(found))
    for name, question in questions().items():
        answers = [ask(g, question, {}, NOW.date()) for g in (found, without_copies(found))]
        assert answers[0].rows == answers[1].rows, name
        assert answers[0].columns == answers[1].columns, name


def test_a_damaged_copy_is_found_and_taken_out_and_made_again(hospital: HospitalLake, tmp_path: Path) -> None:
    lake = hospital.copy(tmp_path).lake
    lake.compact(NOW, everything=True)
    whole = contents(current(lake))
    copy = layers(lake)[0].copy
    assert copy
    copy.write_bytes(copy.read_bytes()[:-1] + b"?")
    key = f"files/{copy.name}"
    assert [found for found, problem in checked(lake) if problem] == [key]

    mended = mend(lake, NOW, lambda: None)

    assert (mended.keys, mended.tables, mended.types) == ((key,), ("condition",), ())
    assert [one.copy for one in layers(lake)] == [None]
    assert contents(current(lake)) == whole
    assert lake.compact(NOW)
    assert layers(lake)[0].copy
    assert contents(current(lake)) == whole


def test_a_connection_to_copies_is_as_closed_as_another(tmp_path: Path) -> None:
    lake = conditions(tmp_path, 1000)
    with connect(current(lake)) as connection:
        for sql in (
            "CREATE TABLE copy_0.other (n INTEGER)",
            "DELETE FROM copy_0.copied",
            f"ATTACH '{layers(lake)[0].file}' AS other",
            f"COPY copy_0.copied TO '{tmp_path / 'out.csv'}'",
            f"SELECT * FROM read_parquet('{layers(lake, 'resource_Condition')[0].file}')"
            if "resource_Condition" in current(lake).tables
            else "SELECT * FROM '/etc/passwd'",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)
    for sql in ("SELECT * FROM copy_0.copied", "SELECT * FROM copy_0.main.copied", "SELECT * FROM copied"):
        with pytest.raises(Exception, match="sql: "):
            run_sql(current(lake), sql)


def test_of_a_store_the_copy_is_fetched_in_the_place_of_its_file(tmp_path: Path) -> None:
    with running_moto() as moto:
        url = moto.bucket()
        lake = Lake(moto.place(url, tmp_path / "a"))
        lake.append([line("Condition", f"c{n}") for n in range(1000)])
        lake.publish(NOW)
        assert lake.compact(NOW)
        other = Lake(moto.place(url, tmp_path / "b"))
        assert run_sql(current(other), COUNT).rows == ((1000, 1000),)
        (one,) = layers(other)
        assert one.copy
        assert [path.name for path in (tmp_path / "b" / "files").iterdir()] == [one.copy.name]
