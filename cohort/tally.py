"""What the newest generation holds of the bridge's resources and of each study, to be compared with the state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import duckdb
import orjson

from bridge.errors import SinkUnavailable
from cohort.generation import Generations
from cohort.lake import Lake
from cohort.tables import MEMORY_LIMIT_MB, Tables

ROWS_AT_ONCE = 1000
COUNTING_MB = 128
"""What counting by study may hold; past it DuckDB spills into a folder, so that memory does not grow with studies."""

_OF_INSTANCES = ("study_instance_uid", "sop_instance_uid")
_COUNTED = "CREATE OR REPLACE TEMP TABLE counted (uid VARCHAR, series BIGINT, instances BIGINT, digest UBIGINT)"
_INSTANCES = "SELECT study_instance_uid, 0, count(*), bit_xor(md5_number_lower(sop_instance_uid)) FROM {rows} {wanted}"
_SERIES = "SELECT study_instance_uid, count(*), 0, 0 FROM {rows} {wanted}"
_STUDIES = """
SELECT uid, sum(series)::INTEGER, sum(instances)::INTEGER, bit_xor(digest)::VARCHAR
FROM counted GROUP BY 1 HAVING sum(instances) > 0
"""


class LakeTally:
    """One generation at a time; the files of one that is read stay for 15 minutes at least, and while nothing newer
    comes. Raises SinkUnavailable when the lake cannot be read."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._stack = lake, ExitStack()
        self._tables: Tables | None = None

    def __enter__(self) -> LakeTally:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def refresh(self) -> None:
        """Publishes what was delivered, and looks at the newest generation from now on."""
        self._stack.close()
        try:
            self._lake.publish(datetime.now(UTC))
        except OSError as error:
            raise SinkUnavailable(f"lake: it cannot be published: {error.strerror}") from None
        place = self._lake.place
        head = Generations(place.store, place.files).head()
        scratch = self._stack.enter_context(place.scratch())
        self._tables = self._stack.enter_context(Tables(place.files, scratch, "tally", head.tables))

    def resources(self) -> Iterator[tuple[str, int, str]]:
        """(type/id, 1 when it is deleted, SHA-256 of the content) of every resource that the bridge delivered."""
        for kind in self._kinds():
            for query in self._resources_of(kind):
                yield from map(_resource, self._rows(query))

    def resource_digests(self, keys: Sequence[str]) -> dict[str, tuple[str, int, str]]:
        """type/id → the same of these resources alone."""
        found: dict[str, tuple[str, int, str]] = {}
        for kind in {key.partition("/")[0] for key in keys} & set(self._kinds()):
            ids = [key.partition("/")[2] for key in keys if key.startswith(f"{kind}/")]
            for query in self._resources_of(kind):
                rows = self._rows(f"{query} AND list_contains($values, id)", ids)
                found |= {row[0]: row for row in map(_resource, rows)}
        return found

    def studies(self) -> Iterator[tuple[str, int, int, str]]:
        """(Study Instance UID, series, instances, digest of the SOP Instance UIDs) of every study with DICOM rows: the
        digest is the exclusive or of the last 64 bits of their MD5s."""
        yield from map(_study, self._rows(_STUDIES, memory_mb=COUNTING_MB, first=self._counting()))

    def studies_of(self, studies: Sequence[str]) -> dict[str, tuple[str, int, int, str]]:
        """study → the same of these studies alone."""
        first = self._counting("WHERE list_contains($values, study_instance_uid)")
        rows = self._rows(_STUDIES, first=first, values=studies)
        return {row[0]: row for row in map(_study, rows)}

    def _kinds(self) -> list[str]:
        return sorted(n.removeprefix("resource_") for n in self._opened().layers if n.startswith("resource_"))

    def _resources_of(self, kind: str) -> list[str]:
        """A query for each file of the table."""
        scans = self._opened().scans(f"resource_{kind}", ["origin", "id", "deleted", "json"])
        return [f"SELECT '{kind}/' || id, deleted, json FROM {one} WHERE origin = 'bridge'" for one in scans]

    def _counting(self, wanted: str = "") -> list[str]:
        """What is done first: the rows of each file, counted by study."""
        tables = self._opened()
        counted = [(_INSTANCES, one) for one in tables.scans("dicom_instance", _OF_INSTANCES)]
        counted += [(_SERIES, one) for one in tables.scans("dicom_series", _OF_INSTANCES[:1])]
        inserts = [f"INSERT INTO counted {q.format(rows=one, wanted=wanted)} GROUP BY 1" for q, one in counted]
        return [_COUNTED, *inserts]

    def _opened(self) -> Tables:
        if self._tables is None:
            raise SinkUnavailable("lake: not looked at yet")
        return self._tables

    def _rows(
        self,
        query: str,
        values: Sequence[str] | None = None,
        memory_mb: int = MEMORY_LIMIT_MB,
        first: Sequence[str] = (),
    ) -> Iterator[tuple[Any, ...]]:
        """The query's rows, after what is done `first`; `$values` where they have it."""
        cursor = self._opened().db.cursor()
        try:
            cursor.execute(f"SET memory_limit = '{memory_mb}MB'")  # of the whole DuckDB: one query runs at a time
            for one in (*first, query):
                cursor.execute(one, {"values": values} if "$values" in one else {})
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                yield from rows
        except duckdb.Error:
            raise SinkUnavailable("lake: a file cannot be read; bridge verify tells which") from None
        finally:
            cursor.close()


def _resource(row: tuple[Any, ...]) -> tuple[str, int, str]:
    key, deleted, content = row
    if content is None:
        return str(key), int(deleted), ""
    plain = orjson.dumps(orjson.loads(content), option=orjson.OPT_SORT_KEYS)
    return str(key), int(deleted), hashlib.sha256(plain).hexdigest()


def _study(row: tuple[Any, ...]) -> tuple[str, int, int, str]:
    return str(row[0]), int(row[1]), int(row[2]), str(row[3])
