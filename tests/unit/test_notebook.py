from __future__ import annotations

from pathlib import Path

from tests import notebook
from tests.hospital_lake import HospitalLake


def test_the_notebook_runs_and_shows_what_it_gives(hospital: HospitalLake, tmp_path: Path) -> None:
    """Where it does not any more: `make notebook` writes it anew; look at what changed."""
    shown = notebook.texts(notebook.read())
    assert len(shown) > 8
    assert notebook.texts(notebook.executed(hospital.root, tmp_path / "executed")) == shown
