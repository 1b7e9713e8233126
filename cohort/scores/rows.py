"""Predictions with their outcomes, one row for each, as arrays. Needs pyarrow (the extra `scores`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from bridge.errors import InvalidQuery

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Moments = NDArray[np.datetime64]

MOST_ROWS = 5_000_000
OUTCOMES = ("refuted", "confirmed", "censored", "pending")
REFUTED, CONFIRMED = 0, 1
WITHDRAWN = "withdrawn"
"""The outcome of a prediction that its model took back."""

_MOMENT = pa.timestamp("us", tz="UTC")
COLUMNS: Mapping[str, Any] = {
    "prediction_id": pa.string(), "patient": pa.string(), "study_instance_uid": pa.string(), "model": pa.string(),
    "model_version": pa.string(), "finding_system": pa.string(), "finding_code": pa.string(), "score": pa.float64(),
    "threshold": pa.float64(), "predicted": pa.bool_(), "outcome": pa.string(), "evidence_kind": pa.string(),
    "evidence": pa.string(), "evidence_date": pa.date32(), "index_date": pa.date32(), "predicted_at": _MOMENT,
    "delay_days": pa.int64(), "reader_agrees": pa.bool_(), "reader_at": _MOMENT, "modality": pa.string(),
    "manufacturer": pa.string(), "model_name": pa.string(), "site": pa.string(), "age_band": pa.string(),
    "sex": pa.string(), "changed": pa.string(),
}  # fmt: skip
"""The columns of a row and their types, in order."""

_SEEN = tuple(name for name in COLUMNS if name not in ("evidence_kind", "evidence", "evidence_date"))
"""The columns that anything is computed of."""

_NEEDED = ("prediction_id", "patient", "study_instance_uid", "model", "model_version", "predicted", "outcome")


@dataclass(frozen=True)
class Labels:
    """A column of words: `names[codes[n]]` is the word of row n; "" where there is none."""

    codes: Integers
    names: tuple[str, ...]

    def at(self, wanted: Integers | Flags) -> Labels:
        return Labels(self.codes[wanted], self.names)


@dataclass(frozen=True)
class Rows:
    """Predictions as arrays of the same length.

    `score` and `threshold` are nan where there is none; `outcome` is a place in OUTCOMES; `reader_agrees` is 1, 0, or
    -1 where no reader judged; moments are UTC, NaT where there is none. `left_out` counts the rows that cannot be used,
    by reason.
    """

    patient: Labels
    study: Labels
    model: Labels
    model_version: Labels
    finding_system: Labels
    finding_code: Labels
    score: Floats
    threshold: Floats
    predicted: Flags
    outcome: Integers
    delay_days: Floats
    reader_agrees: Integers
    predicted_at: Moments
    reader_at: Moments
    index_date: Moments
    modality: Labels
    manufacturer: Labels
    model_name: Labels
    site: Labels
    age_band: Labels
    sex: Labels
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.score)

    def at(self, wanted: Integers | Flags) -> Rows:
        """These rows alone: by their numbers, or where a flag is set. Nothing of them is left out."""
        taken: dict[str, Any] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, Labels):
                taken[field.name] = column.at(wanted)
            elif isinstance(column, np.ndarray):
                taken[field.name] = column[wanted]
        return replace(self, **taken, left_out={})


def rows_of(table: pa.Table) -> Rows:
    """The rows of a table with COLUMNS, one for each prediction: of several with one `prediction_id` the one `changed`
    last. What contradicts itself is left out and counted: two last rows that differ, an outcome or a score that there
    cannot be.

    Raises  InvalidQuery, naming the column, for a table that is not of this form
    """
    if table.num_rows > MOST_ROWS:
        raise InvalidQuery(f"rows: found {table.num_rows}; allowed: {MOST_ROWS} at most")
    table = pa.table({name: _column(table, name) for name in COLUMNS})
    newest, left_out = _newest(table)
    table = table.take(newest)
    made = Rows(
        patient=_labels(table, "patient"),
        study=_labels(table, "study_instance_uid"),
        model=_labels(table, "model"),
        model_version=_labels(table, "model_version"),
        finding_system=_labels(table, "finding_system"),
        finding_code=_labels(table, "finding_code"),
        score=_floats(table, "score"),
        threshold=_floats(table, "threshold"),
        predicted=pc.fill_null(table["predicted"], False).to_numpy().astype(bool),
        outcome=_outcomes(table),
        delay_days=_floats(table, "delay_days"),
        reader_agrees=pc.fill_null(table["reader_agrees"].cast(pa.int8()), -1).to_numpy().astype(np.int64),
        predicted_at=_moments(table, "predicted_at"),
        reader_at=_moments(table, "reader_at"),
        index_date=_moments(table, "index_date"),
        modality=_labels(table, "modality"),
        manufacturer=_labels(table, "manufacturer"),
        model_name=_labels(table, "model_name"),
        site=_labels(table, "site"),
        age_band=_labels(table, "age_band"),
        sex=_labels(table, "sex"),
        left_out={},
    )
    wrong = {
        "withdrawn": np.asarray(pc.fill_null(pc.equal(table["outcome"], WITHDRAWN), False)),
        "outcome unknown": made.outcome < 0,
        "predicted missing": table["predicted"].is_null().to_numpy(),
        "score not within 0 and 1": ~np.isnan(made.score) & ~((made.score >= 0) & (made.score <= 1)),
        "patient missing": _missing(made.patient),
        "study missing": _missing(made.study),
    }
    usable = np.ones(len(made), dtype=bool)
    for reason, flags in wrong.items():
        if found := int(np.count_nonzero(flags & usable)):
            left_out[reason] = found
        usable &= ~flags
    return replace(made.at(usable), left_out=left_out)


def rows_of_records(names: Sequence[str], records: Sequence[Sequence[Any]]) -> Rows:
    """As `rows_of`, of records with the columns `names`; days and moments are ISO 8601. Other columns are passed
    over."""
    places = {name: n for n, name in enumerate(names) if name in _SEEN}
    return rows_of(pa.table({name: pa.array([record[n] for record in records]) for name, n in places.items()}))


def read_rows(path: Path) -> Rows:
    """The rows in a Parquet or CSV file (with a header; empty cells are missing values).

    Raises  InvalidQuery for a file that cannot be read or is not of this form; it names the column, no value
    """
    read = {".parquet": pyarrow.parquet.read_table, ".csv": _read_csv}.get(path.suffix.lower())
    if read is None:
        raise InvalidQuery(f"{path.name}: allowed are names that end in .parquet or .csv")
    try:
        table = read(path)
    except OSError as error:
        raise InvalidQuery(f"{path.name}: cannot be read ({error.strerror or 'no such format'})") from None
    except pa.ArrowInvalid as error:
        raise InvalidQuery(f"{path.name}: cannot be read{_place(str(error), path)}") from None
    return rows_of(table)


def _read_csv(path: Path) -> pa.Table:
    options = pyarrow.csv.ConvertOptions(
        column_types=dict(COLUMNS), strings_can_be_null=True, null_values=[""], include_columns=_header(path)
    )
    return pyarrow.csv.read_csv(path, convert_options=options)


def _header(path: Path) -> list[str]:
    names = pyarrow.csv.open_csv(path).schema.names
    return [name for name in names if name in COLUMNS]


def _place(message: str, path: Path) -> str:
    """Which column a message of the reader speaks of; its words would quote a value."""
    found = re.search(r"In CSV column #(\d+)", message)
    if found is None:
        return ""
    names = _header(path)
    number = int(found[1])
    name = names[number] if number < len(names) else ""
    return f": column {name}: allowed is {COLUMNS[name]}" if name else ""


def _column(table: pa.Table, name: str) -> Any:
    if name not in table.column_names:
        if name in _NEEDED:
            raise InvalidQuery(f"rows: there is no column {name}; needed are {', '.join(_NEEDED)}")
        return pa.nulls(table.num_rows, COLUMNS[name])
    column, wanted = table[name], COLUMNS[name]
    if pa.types.is_timestamp(column.type) and column.type.tz is None and pa.types.is_timestamp(wanted):
        column = pc.assume_timezone(column, "UTC")
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InvalidQuery(f"rows: column {name}: found {column.type}; allowed is {wanted}") from None


def _newest(table: pa.Table) -> tuple[Integers, dict[str, int]]:
    """The numbers of the rows that count, in order, and how many do not, by reason."""
    ids, changed = _labels(table, "prediction_id"), _labels(table, "changed")
    ranked = sorted(range(len(changed.names)), key=lambda n: _generation(changed.names[n]))
    rank = np.empty(len(ranked), dtype=np.int64)
    rank[ranked] = np.arange(len(ranked))
    order = np.lexsort((rank[changed.codes], ids.codes))
    same_id = np.diff(ids.codes[order]) == 0
    last = np.append(~same_id, True)[: len(order)]
    same_time = same_id & (np.diff(rank[changed.codes][order]) == 0)
    rivals = order[:-1][same_time] if len(order) else order
    named = ~_missing(ids)[order]
    left_out = {"prediction_id missing": int(np.count_nonzero(~named))}
    kept = order[last & named]
    if len(rivals):
        contradicted = _contradicted(table, ids.codes, rank[changed.codes], rivals)
        hidden = np.isin(ids.codes[kept], contradicted)
        left_out["two rows for one prediction that differ"] = int(np.count_nonzero(hidden))
        kept = kept[~hidden]
    left_out["replaced by a later row, or the same row again"] = int(np.count_nonzero(~last & named))
    return np.sort(kept), {reason: count for reason, count in left_out.items() if count}


def _contradicted(table: pa.Table, ids: Integers, rank: Integers, rivals: Integers) -> Integers:
    """The predictions whose last rows say different things."""
    suspects = np.flatnonzero(np.isin(ids, ids[rivals]))
    newest: dict[int, int] = {}
    said: dict[int, set[tuple[Any, ...]]] = {}
    content = table.take(suspects).to_pydict()
    for number, row in zip(suspects, zip(*content.values(), strict=True), strict=True):
        id_, at = int(ids[number]), int(rank[number])
        if at > newest.get(id_, -1):
            newest[id_], said[id_] = at, set()
        if at == newest[id_]:
            said[id_].add(row)
    return np.array([id_ for id_, rows in said.items() if len(rows) > 1], dtype=np.int64)


def _generation(changed: str) -> tuple[int, str]:
    """Generations and numbers in the order they were made: 9 before 10, g000009 before g000010."""
    return len(changed), changed


def _labels(table: pa.Table, name: str) -> Labels:
    encoded = pc.fill_null(table[name], "").combine_chunks().dictionary_encode()
    return Labels(encoded.indices.to_numpy().astype(np.int64), tuple(encoded.dictionary.to_pylist()))


def _missing(labels: Labels) -> Flags:
    return np.isin(labels.codes, [n for n, name in enumerate(labels.names) if not name.strip()])


def _floats(table: pa.Table, name: str) -> Floats:
    column = pc.fill_null(table[name].cast(pa.float64()), float("nan"))
    return cast(Floats, column.to_numpy())


def _moments(table: pa.Table, name: str) -> Moments:
    naive = table[name].cast(pa.timestamp("us"))
    return cast(Moments, naive.to_numpy())


def _outcomes(table: pa.Table) -> Integers:
    places = pc.fill_null(pc.index_in(table["outcome"], value_set=pa.array(OUTCOMES)), -1)
    return cast(Integers, places.to_numpy().astype(np.int64))
