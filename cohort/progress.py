"""How far a question is, shown to whoever waits at a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from cohort.watch import Watch

PATIENCE_S, OFTEN_S = 1.0, 0.2
"""Seconds before anything is shown, and between two looks."""


@contextmanager
def shown() -> Iterator[Watch | None]:
    """A watch whose progress is drawn on standard error while the block lasts; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    watch, done = Watch(), threading.Event()
    drawer = threading.Thread(target=_draw, args=(watch, done), daemon=True)
    drawer.start()
    try:
        yield watch
    finally:
        done.set()
        drawer.join()


def _draw(watch: Watch, done: threading.Event) -> None:
    if done.wait(PATIENCE_S):
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("asking", total=None)
        while not done.wait(OFTEN_S):
            if watch.progress is not None:
                bar.update(task, total=1.0, completed=watch.progress)
