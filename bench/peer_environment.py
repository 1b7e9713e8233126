"""What we are measured against and do not depend on, each in an environment of its own that is made once."""

from __future__ import annotations

import json
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from bench.results_file import ROOT

DICOM2FHIR = "dicom2fhir 0.1.25"
PROCRASTINATE = "Procrastinate 3.10.0"


@dataclass(frozen=True)
class Translated:
    """Milliseconds for one instance of the studies that dicom2fhir can translate; `failed` studies it cannot."""

    wall_ms: float
    cpu_ms: float
    failed: int


def by_dicom2fhir(folder: Path) -> Translated:
    """From the entries of a folder to serialised R4: a folder in it is one study's files, a .json its DICOM JSON."""
    python = _python("dicom2fhir", "dicom2fhir==0.1.25", "fhir.resources==8.0.0")
    command = [str(python), str(ROOT / "bench" / "peer_dicom2fhir.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["instances"], "dicom2fhir translated nothing"
    wall_ms, cpu_ms = (1000 * float(found[clock]) / int(found["instances"]) for clock in ("seconds", "cpu_seconds"))
    return Translated(wall_ms, cpu_ms, int(found["failed"]))


@dataclass(frozen=True)
class Worked:
    """Jobs of a backlog begun and ended in a second, and how many in all."""

    per_s: float
    jobs: int


def by_procrastinate(address: str, backlog: int, at_most_s: float) -> Worked:
    """One job that does nothing for each key of the backlog, locked by the key; worked off for so long at most.

    `address` is of an empty PostgreSQL database, as libpq reads it.
    """
    python = _python("procrastinate", "procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9")
    command = [str(python), str(ROOT / "bench" / "peer_procrastinate.py"), address, str(backlog), str(at_most_s)]
    done = subprocess.run(command, capture_output=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["jobs"], "Procrastinate did nothing"
    return Worked(int(found["jobs"]) / float(found["seconds"]), int(found["jobs"]))


def _python(name: str, *packages: str) -> Path:
    folder = ROOT / ".venv-bench" / name
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python
