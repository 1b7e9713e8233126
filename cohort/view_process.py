"""Runs a view from outside over resources from outside, in a process that limits can kill."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bridge.confined import command
from bridge.errors import InvalidQuery, Unavailable
from cohort.answer import Answer
from cohort.sandbox import Limits


@dataclass(frozen=True)
class ViewAnswer:
    """The rows, and the resources that were left out: (place from 1, why)."""

    answer: Answer
    engine: str
    left_out: tuple[tuple[int, str], ...]


def run_apart(view: Mapping[str, Any], resources: Sequence[Any], limits: Limits) -> ViewAnswer:
    """The view's rows over these resources. Raises InvalidQuery for a view that is not valid or takes too much,
    Unavailable when its process fails."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "resources.ndjson"
        file.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in resources))
        request = {
            "view": view,
            "file": str(file),
            "rows": limits.rows,
            "address_space": limits.address_space,
            "cpu_s": limits.cpu_s,
            "answer_bytes": limits.answer_bytes,
        }
        try:
            done = subprocess.run(
                command("cohort.view_worker"),
                input=orjson.dumps(request),
                capture_output=True,
                timeout=limits.deadline_s,
                check=False,
                env={},  # credentials may stand in ours
            )
        except subprocess.TimeoutExpired:
            raise InvalidQuery(f"the view took longer than {limits.deadline_s:g} s and was ended") from None
    try:
        told = orjson.loads(done.stdout)
    except orjson.JSONDecodeError:
        if done.returncode < 0:
            raise InvalidQuery("the view used more memory or CPU time than allowed and was ended") from None
        raise Unavailable("the view's process failed to answer") from None
    if "error" in told:
        raise InvalidQuery(told["error"])
    columns = tuple((str(name), str(kind)) for name, kind in told["columns"])
    rows = tuple(map(tuple, told["rows"]))
    answer = Answer(columns, rows, told["truncated"], "", round(time.monotonic() - started, 3))
    return ViewAnswer(answer, told["engine"], tuple((int(n), str(why)) for n, why in told["left_out"]))
