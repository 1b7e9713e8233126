from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import duckdb
import orjson
import pytest

from bridge import confined
from bridge.errors import InvalidQuery
from cohort import sandbox, spill
from cohort.answer import Answer
from cohort.engine.duckdb import connect
from cohort.functions import ALLOWED, TABLE_FUNCTIONS
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.render import as_csv, as_json, rendered
from cohort.sandbox import Limits, Task, run_sql
from cohort.workers import Late, Worker

ROOT = Path(__file__).parents[2]
T = TypeVar("T")

ESCAPES = """
SELECT * FROM '/etc/passwd'
SELECT * FROM 'data.csv'
SELECT * FROM "/etc/passwd"
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_csv_auto('/etc/passwd')
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM read_blob('/etc/passwd')
SELECT * FROM read_json('/etc/passwd')
SELECT * FROM read_parquet('/etc/passwd')
SELECT * FROM parquet_metadata('/etc/passwd')
SELECT * FROM parquet_schema('x')
SELECT * FROM glob('/*')
SELECT * FROM sniff_csv('/etc/passwd')
SELECT getenv('HOME')
SELECT getvariable('x')
SELECT current_setting('memory_limit')
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_views()
SELECT * FROM duckdb_secrets()
SELECT * FROM duckdb_tables()
SELECT * FROM pragma_table_info('patient')
SELECT * FROM pragma_database_size()
SELECT * FROM information_schema.tables
SELECT * FROM main.sqlite_master
SELECT * FROM sqlite_master
SELECT * FROM system.main.duckdb_columns
SELECT * FROM pg_catalog.pg_class
SELECT * FROM memory.main.patient
SELECT * FROM temp.patient
SELECT * FROM query('SELECT 1')
SELECT * FROM query_table('patient')
SELECT * FROM json_execute_serialized_sql('x')
SELECT * FROM arrow_scan(1, 2, 3)
SELECT * FROM pandas_scan(1)
SELECT * FROM sql
SELECT * FROM request
COPY patient TO '/tmp/out.csv'
COPY (SELECT 1) TO '/tmp/out.parquet'
COPY patient FROM '/etc/passwd'
EXPORT DATABASE '/tmp/x'
IMPORT DATABASE '/tmp/x'
ATTACH '/tmp/x.db'
ATTACH 'https://host.example/x.db'
DETACH memory
INSTALL httpfs
LOAD httpfs
LOAD '/tmp/evil.so'
SET memory_limit = '100GB'
SET enable_external_access = true
RESET ALL
PRAGMA database_list
PRAGMA enable_profiling
CREATE TABLE x AS SELECT 1
CREATE MACRO f() AS 1
CREATE SECRET s (TYPE s3)
INSERT INTO patient VALUES (1)
UPDATE patient SET gender = 'x'
DELETE FROM patient
DROP VIEW patient
ALTER VIEW patient RENAME TO x
CALL pragma_version()
DESCRIBE patient
SHOW TABLES
SUMMARIZE patient
EXPLAIN ANALYZE SELECT 1
FROM (DESCRIBE patient)
SELECT * FROM (SHOW TABLES)
SELECT * FROM (SUMMARIZE patient)
SELECT 1; SELECT 2
SELECT 1; COPY patient TO '/tmp/x'
WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x
SELECT (SELECT content FROM read_text('/etc/passwd'))
SELECT * FROM patient WHERE EXISTS (SELECT 1 FROM glob('/*'))
SELECT * FROM patient JOIN '/etc/passwd' ON true
SELECT * FROM patient, LATERAL (SELECT * FROM read_text('/etc/' || gender))
SELECT * FROM patient UNION ALL SELECT * FROM read_csv('/etc/passwd')
/* harmless */ SELECT * FROM READ_TEXT('/etc/passwd')
SELECT * FROM "read_text"('/etc/passwd')
SELECT * FROM main.read_text('/etc/passwd')
PREPARE x AS SELECT 1
EXECUTE x
BEGIN TRANSACTION
CHECKPOINT
VACUUM
SELECT repeat('x', 3)
SELECT list_resize([1], 3)
SELECT range(3)
SELECT sleep_ms(1)
SELECT error('x')
SELECT stats(gender) FROM patient
SELECT json_serialize_plan('SELECT 1')
SELECT json_deserialize_sql('{}')
SELECT pg_sleep(1)
SELECT write_log('x')
SELECT test_all_types()
SELECT * FROM test_all_types()
SELECT * FROM repeat(1, 3)
SELECT * FROM repeat_row(1, num_rows := 3)
SELECT * FROM duckdb_functions()
SELECT * FROM duckdb_logs
SELECT * FROM duckdb_views
SELECT * FROM stored.patient
SELECT * FROM patient AT (VERSION => 1)
SELECT $1
SELECT ?
WITH sqlite_master AS (SELECT 1) SELECT * FROM sqlite_master
WITH t AS (SELECT * FROM glob('/*')) SELECT 1
SELECT * FROM patient WHERE gender IN (SELECT content FROM read_text('/etc/passwd'))
SELECT count(*) FILTER (WHERE getenv('HOME') = '') FROM patient
SELECT sum(1) OVER (ORDER BY getenv('HOME')) FROM patient
SELECT gender FROM patient ORDER BY getenv('HOME')
SELECT gender FROM patient LIMIT (SELECT length(getenv('HOME')))
SELECT list_transform([1], lambda x: getenv('HOME'))
SELECT [getenv('HOME') FOR x IN [1]]
SELECT CASE WHEN getenv('HOME') = '' THEN 1 END
SELECT 'x'::VARCHAR COLLATE NOCASE, current_setting('threads')
SELECT 1 UNION ALL SELECT length(content) FROM read_text('/etc/passwd')
SELECT * FROM (SELECT * FROM patient PIVOT (count(*) FOR gender IN (getenv('HOME'))))
""".strip().splitlines()
ESCAPES.append("SELECT 1 -- harmless\n; SELECT 2")

BOMBS = """
SELECT repeat('x', 2000000000)
SELECT lpad('x', 2000000000, 'y')
SELECT rpad('x', 2000000000, 'y')
SELECT printf('%2000000000d', 1)
SELECT format('{:>2000000000}', 'x')
SELECT bar(1, 0, 1, 1000000000)
SELECT list_resize([1], 2000000000)
SELECT list(i) FROM range(5000000000) t(i)
SELECT string_agg(i, ',') FROM range(1000000000) t(i)
SELECT count(*) FROM range(1000000000000)
SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000) c
SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t
WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT length(max(s)) FROM t
SELECT DISTINCT i % 1000000007 FROM range(10000000000) t(i)
SELECT * FROM range(10000000000) t(i) ORDER BY hash(i)
SELECT array_to_string(range(2000000000), ',')
SELECT unnest(range(100000000000))
SELECT max(s) FROM (SELECT string_split(concat_ws(',', range(100000000)), ',') AS s)
SELECT regexp_matches('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' || i, '(a+)+$') FROM range(10000000000) t(i)
WITH RECURSIVE t(l) AS (SELECT [1] UNION ALL SELECT list_concat(l, l) FROM t) SELECT length(max(l)) FROM t
WITH a AS (SELECT * FROM range(100000)), b AS (SELECT * FROM a, a), c AS (SELECT * FROM b, b) SELECT count(*) FROM c
SELECT * FROM range(1000000) a, range(1000000) b ORDER BY hash(a.range + b.range) LIMIT 1000000000
SELECT median(i) OVER (ORDER BY i ROWS BETWEEN 1000000 PRECEDING AND CURRENT ROW) FROM range(100000000) t(i)
SELECT replace(replace(replace(s, 'x', s), 'x', s), 'x', s) FROM (SELECT string_agg('x', '') AS s FROM range(20000))
SELECT regexp_replace(s, 'x', s, 'g') FROM (SELECT string_agg('x', '') AS s FROM range(200000))
SELECT count(*) FROM range(200000) a(i) JOIN range(200000) b(j) ON levenshtein(a.i || 'aaaaaaaa', b.j || 'bbbbbbbb') = 3
SELECT histogram(i) FROM range(1000000000) t(i)
SELECT list_sort(list(i)) FROM range(1000000000) t(i)
SELECT generate_subscripts(list(i), 1) FROM range(1000000000) t(i)
""".strip().splitlines()


@pytest.fixture(scope="module")
def generation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generation]:
    lake = Lake(tmp_path_factory.mktemp("sandbox") / "lake")
    resource = {"resourceType": "Patient", "id": "p", "gender": "female"}
    line = {"kind": "resource", "origin": "clinical", "type": "Patient", "id": "p", "revision": 1, "deleted": False}
    lake.append([line | {"resource": resource}])
    published = lake.publish(datetime.now(UTC))
    assert published is not None
    yield published


@pytest.mark.parametrize("sql", ESCAPES)
def test_nothing_but_the_tables_can_be_reached(generation: Generation, sql: str) -> None:
    with pytest.raises(InvalidQuery):
        run_sql(generation, sql)


def test_the_lists_are_as_long_as_they_should_be() -> None:
    assert len(ESCAPES) >= 110
    assert len(BOMBS) >= 30


@pytest.mark.parametrize("sql", BOMBS)
def test_a_bomb_ends_in_an_error_within_its_limits(generation: Generation, sql: str) -> None:
    limits = Limits(deadline_s=4, cpu_s=3, memory_mb=256, address_space=3_000_000_000)
    try:
        answer = run_sql(generation, sql, limits)
    except InvalidQuery:
        return
    assert answer.truncated  # a stream of rows is cut at the row limit and harms nobody


@pytest.mark.parametrize(
    "sql", [s for s in ESCAPES if s.startswith(("SELECT * FROM read", "COPY", "ATT", "SET", "LOAD"))]
)
def test_the_locked_connection_refuses_even_without_the_gate(generation: Generation, sql: str) -> None:
    connection = connect(generation)
    with pytest.raises(duckdb.Error):
        connection.execute(sql).fetchall()


def test_a_query_in_a_worker_finds_no_environment_and_no_file_to_write(generation: Generation) -> None:
    """What the worker is given, seen by a program that the worker's own start runs."""
    told = orjson.loads(
        subprocess_of_worker(
            "import os, json, sys; told = json.dumps([dict(os.environ), os.getcwd()]).encode(); "
            "sys.stdout.buffer.write(len(told).to_bytes(8, 'big') + told)"
        )
    )
    assert [name for name in told[0] if name != "LC_CTYPE"] == []
    assert told[1] == "/"


def subprocess_of_worker(program: str) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confined, "_PROGRAM", program)
        worker = Worker({}, spill=False)
    try:
        return worker.ask({}, 60, None)
    finally:
        worker.end()


LARGE = "SELECT count(*) FROM (SELECT DISTINCT range, hash(range) AS other FROM range(3000000))"


def test_a_question_goes_on_on_disk_where_its_memory_ends_and_leaves_nothing_there(
    generation: Generation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    narrow = Limits(memory_mb=60, deadline_s=60)
    assert sandbox.run(generation, Task(LARGE), narrow).rows == ((3_000_000,),)
    sandbox.WORKERS.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidQuery, match="needs more memory than allowed"):
        run_sql(generation, LARGE, narrow)


def test_folders_of_processes_that_were_killed_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["true"]) as ended:
        pass
    left, others = tmp_path / f"cohort-spill-{ended.pid}-x", tmp_path / "cohort-spill-1-x"
    for folder in (left, others, tmp_path / "cohort-spill-x"):
        folder.mkdir()
        (folder / "duckdb_temp_storage-0.tmp").write_bytes(b"rows")
    spill.sweep.cache_clear()
    with spill.spilling() as own:
        assert Path(own).stat().st_mode & 0o077 == 0
        assert sorted(tmp_path.iterdir()) == sorted([Path(own), others, tmp_path / "cohort-spill-x"])


def test_a_question_is_answered_where_no_temporary_file_can_be_made(
    generation: Generation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert sandbox.run(generation, Task("SELECT count(*) FROM patient")).rows[0][0] > 0


def test_what_a_worker_started_ends_with_it(tmp_path: Path) -> None:
    """A child of a worker that is ended at its deadline is ended too."""
    left = tmp_path / "pid"
    program = (
        "import subprocess, sys, time, pathlib; "
        "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']); "
        f"pathlib.Path({str(left)!r}).write_text(str(c.pid)); time.sleep(99)"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confined, "_PROGRAM", program)
        worker = Worker({}, spill=False)
        with pytest.raises(Late):
            worker.ask({}, 8, None)
        worker.end()
    child = int(left.read_text())
    for _ in range(500):
        if not _alive(child):
            return
        time.sleep(0.02)
    pytest.fail("the child goes on")


def _alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_every_function_that_may_be_called_exists() -> None:
    known = {row[0] for row in duckdb.execute("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()}
    assert known >= ALLOWED | TABLE_FUNCTIONS


def test_no_function_that_may_be_called_leaves_the_tables() -> None:
    """By what DuckDB says of them, and by names that read, set, wait or tell of the engine."""
    told = duckdb.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE has_side_effects OR function_type = 'pragma'"
    ).fetchall()
    harmless = {"random", "uuid", "gen_random_uuid", "unnest", "repeat", "now", "range", "generate_series"}
    assert {row[0] for row in told} & ALLOWED <= harmless
    words = re.compile("read_|_scan|duckdb|pragma|pg_|setting|variable|secret|log_|sleep|query|serialize|env|schema")
    assert [name for name in ALLOWED if words.search(name)] == []


def test_a_worker_ends_with_who_asked(generation: Generation) -> None:
    """kill -9 of the asking process leaves no query running."""
    lake = generation.tables["patient"].layers[0].file.parents[1]
    program = (
        "import sys; from pathlib import Path; from cohort.lake import Lake; "
        "from cohort.sandbox import Limits, Task, run_sql; "
        "sql = 'SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range + b.range) = 1'; "
        "run_sql(Lake(Path(sys.argv[1])).current(), sql, Limits(deadline_s=100, cpu_s=100))"
    )
    asking = subprocess.Popen([sys.executable, "-c", program, str(lake)], env={"PYTHONPATH": str(ROOT)})
    children = Path(f"/proc/{asking.pid}/task/{asking.pid}/children")
    worker = int(_until(lambda: next(iter(children.read_text().split()), None)))
    _until(lambda: True if _threads(worker) > 1 else None)
    asking.kill()
    asking.wait()
    _until(lambda: True if not _alive(worker) else None)


def _threads(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


def _until(look: Callable[[], T | None]) -> T:
    for _ in range(3000):
        found = look()
        if found is not None:
            return found
        time.sleep(0.02)
    pytest.fail("it did not come to be")


def test_ordinary_sql_works(generation: Generation) -> None:
    sql = """
        WITH women AS (SELECT * FROM patient WHERE gender = 'female'), n AS (SELECT count(*) AS n FROM women)
        SELECT p.patient_id, n.n, row_number() OVER (ORDER BY p.patient_id) AS place, [1, 2, 3][2] AS two,
               CASE WHEN p.birth_date IS NULL THEN 'unknown' END AS born, u.i
        FROM patient p CROSS JOIN n, LATERAL (SELECT unnest([10, 20]) AS i) u
        WHERE p.patient_id IN (SELECT patient_id FROM women) ORDER BY u.i
    """
    answer = run_sql(generation, sql)
    assert answer.rows == (("p", 1, 1, 2, "unknown", 10), ("p", 1, 2, 2, "unknown", 20))


def test_a_recursive_query_of_ones_own_is_allowed(generation: Generation) -> None:
    sql = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t"
    assert run_sql(generation, sql).rows == ((15,),)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEKT 1", "syntax error"),
        ("SELECT nope FROM patient", "nope"),
        ("SELECT * FROM nowhere", "cohort tables"),
        ("", "SELECT"),
        ("SELECT " + "1+" * 60_000 + "1", "longer"),
    ],
)
def test_a_mistake_is_told_in_words(generation: Generation, sql: str, said: str) -> None:
    with pytest.raises(InvalidQuery, match=said):
        run_sql(generation, sql)


def test_an_error_does_not_quote_a_value(generation: Generation) -> None:
    with pytest.raises(InvalidQuery) as caught:
        run_sql(generation, "SELECT gender::INTEGER FROM patient")
    assert "female" not in str(caught.value)


def test_rows_past_the_limit_are_cut_and_said(generation: Generation) -> None:
    answer = run_sql(generation, "SELECT i FROM range(100) t(i)", Limits(rows=7))
    assert (len(answer.rows), answer.truncated) == (7, True)
    assert not run_sql(generation, "SELECT i FROM range(7) t(i)", Limits(rows=7)).truncated


def test_values_of_every_kind_become_json(generation: Generation) -> None:
    sql = (
        "SELECT 1::UTINYINT, 170141183460469231731687303715884105727::HUGEINT, 1.5::DECIMAL(4,1), 'nan'::DOUBLE, DATE "
        "'2024-02-29', TIMESTAMPTZ '2024-01-01 00:00:00+00', TIME '01:02:03', INTERVAL 3 DAY, [1, NULL], {'a': 1}, "
        "'x'::BLOB, uuid(), true, NULL, MAP {'k': 2}"
    )
    (row,) = run_sql(generation, sql).rows
    assert row[:10] == (
        1, "170141183460469231731687303715884105727", 1.5, None, "2024-02-29", "2024-01-01T00:00:00+00:00", "01:02:03",
        "3 days, 0:00:00", [1, None], {"a": 1},
    )  # fmt: skip


FORMULAS = ["=1+1", "+1", "-cmd", "@x", "\tx", "\rx"]


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_csv_cell_is_never_a_formula(cell: str) -> None:
    answer = Answer((("a", "VARCHAR"), ("n", "INTEGER")), ((cell, -5),), False, "g", 0.0)
    rows = list(csv.reader(io.StringIO(as_csv(answer).decode(), newline="")))
    assert rows[1][0].startswith("'")
    assert rows[1][1] == "-5"


def test_json_and_parquet_say_the_same(generation: Generation, tmp_path: Path) -> None:
    answer = run_sql(generation, "SELECT patient_id, gender, birth_date, [1, 2] AS l, 1.5 AS x FROM patient")
    plain = orjson.loads(as_json(answer))
    assert plain["rows"] == [{"patient_id": "p", "gender": "female", "birth_date": None, "l": [1, 2], "x": 1.5}]
    file = tmp_path / "a.parquet"
    file.write_bytes(rendered(answer, "parquet"))
    read = duckdb.sql(f"SELECT patient_id, l, x FROM '{file}'").fetchall()
    assert [(r[0], list(r[1]), float(r[2])) for r in read] == [("p", [1, 2], 1.5)]
    empty = run_sql(generation, "SELECT * FROM patient WHERE false")
    file.write_bytes(rendered(empty, "parquet"))
    assert duckdb.sql(f"SELECT count(*) FROM '{file}'").fetchall() == [(0,)]
