"""The process one view from outside runs in: limits itself, answers JSON on standard output, ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orjson

from bridge.confined import confine

NICE = 10
"""It stands back for questions to the lake."""


def main() -> None:
    """Reads one request, writes {"columns", "rows", "truncated", "engine", "left_out"} or {"error"}."""
    from bridge.errors import InvalidQuery
    from cohort.engine.views import run_view

    request = orjson.loads(sys.stdin.buffer.read())
    os.nice(NICE)
    confine(request["address_space"], request["cpu_s"])
    try:
        made = run_view(request["view"], [Path(request["file"])], request["rows"])
        told = {
            "columns": made.answer.columns,
            "rows": made.answer.rows,
            "truncated": made.answer.truncated,
            "engine": made.engine,
            "left_out": [[number, reason] for _, number, reason in made.parked[:100]],
        }
        answer = orjson.dumps(told)
    except InvalidQuery as error:
        answer = orjson.dumps({"error": str(error)})
    except MemoryError:
        answer = orjson.dumps({"error": "the view used more memory than allowed and was ended"})
    if len(answer) > request["answer_bytes"]:
        answer = orjson.dumps({"error": "the rows are more than an answer holds: ask for fewer with _limit"})
    sys.stdout.buffer.write(answer)
