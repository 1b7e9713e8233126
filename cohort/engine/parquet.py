"""An answer as a Parquet file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cohort.answer import Answer
from cohort.engine.columnar import relation


def parquet(answer: Answer) -> bytes:
    """The answer's rows as Parquet (zstd), columns with the types they had."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answer.parquet"
        relation(answer).write_parquet(str(out), compression="zstd")
        return out.read_bytes()
