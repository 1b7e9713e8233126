"""Optional test material beside the checkout. Users do not have it: tests that need it skip with the reason."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(os.environ.get("IMAGING_BRIDGE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
CORPUS, SOF_TESTS = ROOT / "corpus", ROOT / "sof-tests"
NO_CORPUS = f"no DICOM corpus at {CORPUS} (set IMAGING_BRIDGE_SHARED)"
NO_SOF_TESTS = f"no SQL-on-FHIR suite at {SOF_TESTS} (set IMAGING_BRIDGE_SHARED)"


def corpus_files() -> list[Path]:
    """Every file of the corpus but its tables; [] when it is absent."""
    return sorted(p for p in CORPUS.rglob("*") if p.is_file() and p.suffix not in (".csv", ".md"))
