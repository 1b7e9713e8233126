"""The command `bridge demo`. Part of the composition root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.demo import run_demo


def demo(
    folder: Annotated[Path, typer.Argument(help="Everything the demo makes is in here")] = Path("demo"),
    once: Annotated[bool, typer.Option("--once", help="Answer, then stop instead of staying up")] = False,
    patients: Annotated[int, typer.Option(min=20, max=5000, help="Patients of the synthetic hospital")] = 240,
) -> None:
    """Make a small synthetic hospital, run the bridge on it, answer the founding question.

    Example: bridge demo ./demo
    """
    run_demo(folder, stay=not once, patients=patients)
