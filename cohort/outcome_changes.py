"""Which rows of outcomes are new, have changed or are gone since somebody last pulled them: a file beside the lake.

    LAKE/outcomes.sqlite    of every prediction that was ever shown a digest of its row, and its last change's number

Each pull compares the rows of now with these digests, in one transaction: rows that are new or differ, and predictions
that are gone, get the next numbers. A cursor is the number up to which somebody has them, behind a word that is drawn
when a series begins: a file that was lost begins another series, and cursors of the lost one are refused.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import InvalidQuery, Unavailable

FILE = "outcomes.sqlite"
WAIT_S = 60.0
CACHE_KIB = 131_072

_TABLES = """
CREATE TABLE IF NOT EXISTS series (name TEXT PRIMARY KEY, word TEXT NOT NULL, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS row (
    series TEXT NOT NULL, prediction TEXT NOT NULL, digest TEXT NOT NULL, changed INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    PRIMARY KEY (series, prediction)) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS by_change ON row (series, changed);
CREATE TEMP TABLE now (prediction TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
"""
_DIFFERENT = """
SELECT n.prediction, n.digest, 0 FROM now n LEFT JOIN row r ON r.series = :series AND r.prediction = n.prediction
WHERE r.prediction IS NULL OR r.gone OR r.digest <> n.digest
UNION ALL
SELECT r.prediction, r.digest, 1 FROM row r LEFT JOIN now n ON n.prediction = r.prediction
WHERE r.series = :series AND NOT r.gone AND n.prediction IS NULL
ORDER BY 1
"""
_NUMBERED = "INSERT OR REPLACE INTO row (series, prediction, digest, changed, gone) VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Changed:
    """What changed: (prediction, number of its change, whether it is gone), in the order of the numbers; the cursor
    behind them, and whether there is `more`."""

    rows: tuple[tuple[str, int, bool], ...]
    cursor: str
    more: bool


def changed(folder: Path, series: str, now: Sequence[tuple[str, str]], cursor: str | None, most: int) -> Changed:
    """What is new, has changed or is gone since the cursor, so many at most; everything that is there without one.

    From    `now`, (prediction, digest of its row) of all predictions of the series; fastest in order
    Raises  InvalidQuery for a cursor of another series or of none; Unavailable when the file cannot be used
    """
    try:
        with _opened(folder) as db:
            word, number = _series(db, series)
            after = _position(cursor, word, number)
            number = _compared(db, series, now, number)
            found = db.execute(
                "SELECT prediction, changed, gone FROM row WHERE series = ? AND changed > ? AND (NOT gone OR ?) "
                "ORDER BY changed LIMIT ?",
                (series, after, cursor is not None, most + 1),
            ).fetchall()
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"the changes of outcomes cannot be kept ({type(error).__name__})") from None
    shown = tuple((prediction, n, bool(gone)) for prediction, n, gone in found[:most])
    more = len(found) > most
    return Changed(shown, f"{word}.{shown[-1][1] if more else number}", more)


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The file, locked for the block, whose changes are durable as a whole or not at all."""
    path = folder / FILE
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)) as db:
        db.executescript(f"PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{CACHE_KIB}; {_TABLES}")
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")


def _series(db: sqlite3.Connection, name: str) -> tuple[str, int]:
    found = db.execute("SELECT word, number FROM series WHERE name = ?", (name,)).fetchone()
    if found is None:
        found = secrets.token_hex(6), 0
        db.execute("INSERT INTO series (name, word, number) VALUES (?, ?, ?)", (name, *found))
    return str(found[0]), int(found[1])


def _position(cursor: str | None, word: str, number: int) -> int:
    if cursor is None:
        return 0
    of, _, at = cursor.partition(".")
    if of != word or not at.isdecimal() or len(at) > 18 or int(at) > number:
        raise InvalidQuery("cursor: is not one of these outcomes any more: ask without a cursor, and begin anew")
    return int(at)


def _compared(db: sqlite3.Connection, series: str, now: Sequence[tuple[str, str]], number: int) -> int:
    """Numbers every difference; the last number."""
    db.executemany("INSERT OR REPLACE INTO now VALUES (?, ?)", now)
    different = db.execute(_DIFFERENT, {"series": series}).fetchall()
    numbered = ((series, p, digest, number + n, gone) for n, (p, digest, gone) in enumerate(different, 1))
    db.executemany(_NUMBERED, numbered)
    db.execute("UPDATE series SET number = ? WHERE name = ?", (number + len(different), series))
    return number + len(different)
