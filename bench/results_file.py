"""What every benchmark writes: where, on what, with which versions, and rows beside their goals."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
LIBRARIES = ("pydicom", "pynetdicom", "duckdb", "fhir.resources", "sqlalchemy", "fastapi", "orjson")


@dataclass(frozen=True)
class Measured:
    """One row. `ratio` is ours over the peer's; `goal` what `met` is judged by (on the ratio or the value)."""

    what: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None


def write(name: str, seed: int, sizes: dict[str, Any], rows: Sequence[Measured], runs: int) -> None:
    """Prints the table and writes bench/results/NAME.json."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    result = {
        "benchmark": name,
        "commit": git.stdout.strip(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "system": platform.system()},
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
        "seed": seed,
        "runs": runs,
        "sizes": sizes,
        "rows": [asdict(row) for row in rows],
    }
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    table = Table(
        "what", "value", "unit", "peer", "peer's", "ratio", "goal", "met", title=f"{name}: medians of {runs} runs"
    )
    for row in rows:
        met = "" if row.met is None else "yes" if row.met else "NO"
        table.add_row(
            row.what, f"{row.value:,.4g}", row.unit, row.peer, _shown(row.peer_value), _shown(row.ratio), row.goal, met
        )
    Console(width=160).print(table)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"
