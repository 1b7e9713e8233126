"""dicom2fhir, which needs other versions of our libraries, in an environment of its own that is made once."""

from __future__ import annotations

import json
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from bench.results_file import ROOT

DICOM2FHIR = "dicom2fhir 0.1.25"
_FOLDER = ROOT / ".venv-bench" / "dicom2fhir"
_PACKAGES = ("dicom2fhir==0.1.25", "fhir.resources==8.0.0")


@dataclass(frozen=True)
class Translated:
    """Milliseconds for one instance of the studies that dicom2fhir can translate; `failed` studies it cannot."""

    wall_ms: float
    cpu_ms: float
    failed: int


def by_dicom2fhir(folder: Path) -> Translated:
    """From the entries of a folder to serialised R4: a folder in it is one study's files, a .json its DICOM JSON."""
    python = _FOLDER / "bin" / "python"
    if not python.exists():
        venv.create(_FOLDER, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *_PACKAGES], check=True)
    command = [str(python), str(ROOT / "bench" / "peer_dicom2fhir.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["instances"], "dicom2fhir translated nothing"
    wall_ms, cpu_ms = (1000 * float(found[clock]) / int(found["instances"]) for clock in ("seconds", "cpu_seconds"))
    return Translated(wall_ms, cpu_ms, int(found["failed"]))
