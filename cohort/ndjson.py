"""FHIR NDJSON → delta files in Parquet, by DuckDB: no line becomes an object of Python, and memory stays the same.

A line that is not a plain resource keeps its place and holds nothing: `cohort.clinical` looks at it itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from cohort.arrivals import COLUMNS
from cohort.keys import key_sql
from cohort.layers import quoted

MEMORY_LIMIT_MB = 2048
LONGEST_ID = LONGEST_TYPE = 64
_FIELDS = '{"resourceType":"JSON","id":"JSON","meta":{"lastUpdated":"JSON"}}'
_INSTANT = (
    r'"(19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?'
    r'(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])"'
)
"""FHIR R4 instant, as JSON, to the microsecond."""


@dataclass(frozen=True)
class Converted:
    """counts: resource type → lines; odd: places of the lines left to look at, from 0, blank lines left out."""

    counts: Mapping[str, int]
    odd: tuple[int, ...]


def convert(source: Path, target: Path, now_us: int, longest_line: int) -> Converted | None:
    """Writes the lines of a file, not compressed, as a delta file. `now_us` is the revision of resources that do not
    say when they were updated. None when DuckDB cannot read the file; there is none then."""
    if set(str(source)) & set("*?["):  # DuckDB would look for other files
        return None
    resource_type, id_ = _text("fields.resourceType"), _text("fields.id")
    revision = (
        f"CASE WHEN fields.meta.lastUpdated IS NULL THEN {now_us} WHEN regexp_full_match(fields.meta.lastUpdated, "
        f"'{_INSTANT}') THEN epoch_us(TRY_CAST({_text('fields.meta.lastUpdated')} AS TIMESTAMPTZ)) END"
    )
    plain = (
        f"strlen(json) <= {longest_line} AND revision IS NOT NULL AND length(id) BETWEEN 1 AND {LONGEST_ID} "
        f"AND regexp_full_match(type, '[A-Za-z]{{1,{LONGEST_TYPE}}}')"
    )
    query = f"""
        SELECT CASE WHEN plain THEN {key_sql("key")} END AS _hash, CASE WHEN plain THEN key END AS _key,
               CASE WHEN plain THEN revision END AS _revision, 'clinical' AS origin,
               CASE WHEN plain THEN type END AS type, CASE WHEN plain THEN id END AS id, false AS deleted,
               CASE WHEN plain THEN json::VARCHAR END AS json
        FROM (SELECT *, 'clinical/' || id AS key, coalesce({plain}, false) AS plain
              FROM (SELECT json, {resource_type} AS type, {id_} AS id, {revision} AS revision
                    FROM (SELECT json, json_transform(json, '{_FIELDS}') AS fields
                          FROM read_json_objects({quoted(source)}, format='newline_delimited', ignore_errors=true,
                                                 compression='none'))))"""
    with duckdb.connect(config={"memory_limit": f"{MEMORY_LIMIT_MB}MB", "threads": 2}) as db:
        db.execute("SET TimeZone = 'UTC'")
        try:
            db.execute(f"COPY (SELECT {', '.join(COLUMNS)} FROM ({query})) TO {quoted(target)} (FORMAT parquet)")
        except (duckdb.InvalidInputException, duckdb.IOException, duckdb.ConversionException):
            target.unlink(missing_ok=True)
            return None
        counts = db.execute(f"SELECT type, count(*) FROM read_parquet({quoted(target)}) GROUP BY 1").fetchall()
        numbered = f"read_parquet({quoted(target)}, file_row_number = true)"
        odd = db.execute(f"SELECT file_row_number FROM {numbered} WHERE type IS NULL ORDER BY 1").fetchall()
    return Converted({kind: lines for kind, lines in counts if kind}, tuple(place for (place,) in odd))


def _text(json: str) -> str:
    """SQL of a JSON string's text; NULL of another value, and of one with an escape."""
    plain = f"starts_with({json}, '\"') AND NOT contains({json}, '\\')"
    return f"CASE WHEN {plain} THEN substring({json}, 2, length({json}) - 2) END"
