"""Runs of a bridge that is killed at a stage (tests.kill_runner)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

KILLED = -9

Run = Callable[..., subprocess.CompletedProcess[bytes]]
"""run(FOLDER, STAGE, NTH, PEER): the process, when it has ended."""


@contextmanager
def kill_runs() -> Iterator[Run]:
    """Everything that a bridge imports is imported once."""
    command = [sys.executable, "-m", "tests.kill_runner"]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as runner:
        assert runner.stdin is not None
        assert runner.stdout is not None
        orders, answers = runner.stdin, runner.stdout

        def run(folder: Path, stage: str = "-", nth: int = 1, peer: str = "") -> subprocess.CompletedProcess[bytes]:
            out, err = folder / "run.out", folder / "run.err"
            order = {"folder": str(folder), "stage": stage, "nth": nth, "peer": peer}
            orders.write(orjson.dumps(order | {"out": str(out), "err": str(err)}) + b"\n")
            orders.flush()
            code = int(answers.readline())
            return subprocess.CompletedProcess([stage], code, out.read_bytes(), err.read_bytes())

        try:
            yield run
        finally:
            runner.kill()


def result(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """What a run that ended by itself found in the end."""
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found
