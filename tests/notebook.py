"""Executes docs/cohort.ipynb on the synthetic hospital.

python -m tests.notebook      writes it anew, with its outputs
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nbformat

from tests.hospital_lake import hospital_lake
from tests.policies import EVERYTHING_TOML

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "cohort.ipynb"
LAKE, CONFIGURATION = Path("demo", "bridge-data", "lake"), Path("demo", "bridge.toml")
"""Where the notebook opens the lake, and the settings: where `make demo` puts them."""


def read() -> Any:
    """The notebook as it stands in docs."""
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def executed(lake: Path, folder: Path) -> Any:
    """The notebook executed in an empty folder, on a lake that lies where the demo's does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the notebook's own machinery
        from nbclient import NotebookClient

        (folder / LAKE).parent.mkdir(parents=True)
        (folder / LAKE).symlink_to(lake, target_is_directory=True)
        (folder / CONFIGURATION).write_text(EVERYTHING_TOML, "utf-8")
        notebook = read()
        places = {"JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython", "MPLCONFIGDIR": "matplotlib"}
        environment = os.environ | {name: str(folder / place) for name, place in places.items()}
        client = NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute(env=environment | {"PYTHONPATH": str(ROOT)})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def texts(notebook: Any) -> list[str]:
    """The plain text of every output, in order."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return [str(o.get("text") or o.get("data", {}).get("text/plain") or o.output_type) for o in outputs]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        made = executed(hospital_lake(Path(scratch)).root, Path(scratch) / "executed")
    nbformat.write(made, NOTEBOOK)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
