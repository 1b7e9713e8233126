"""Log lines: one for each event, and nothing in them that is not on the list."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.telemetry.log_lines import FORMATS

CANARY = "CANARY^ANNA"
Lines = Callable[[], list[str]]


@pytest.fixture(params=sorted(FORMATS))
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    """What was logged since the test began, in each format."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATS[request.param]())
    root = logging.getLogger()
    root.addHandler(handler)
    yield lambda: stream.getvalue().splitlines()
    root.removeHandler(handler)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_our_own_messages_are_told_with_the_fields_of_the_list_alone(lines: Lines) -> None:
    told = {"queue": "sink:ehr", "patient": CANARY, "PatientName": CANARY}
    logging.getLogger("bridge.sync").warning("sink %s: connection refused", "ehr", extra=told)
    (line,) = lines()
    assert "sink ehr: connection refused" in line
    assert "sink:ehr" in line
    assert CANARY not in line


@pytest.mark.parametrize("name", ["httpx", "uvicorn.error", "py.warnings", "psycopg", "sqlalchemy.pool", "bridged"])
def test_of_a_library_the_place_is_told_and_never_the_message(lines: Lines, name: str) -> None:
    logging.getLogger(name).error("GET /fhir/Patient?name=%s", CANARY, exc_info=raised(ValueError(CANARY)))
    (line,) = lines()
    assert CANARY not in line
    assert "test_log_lines.py:" in line
    assert "ValueError" in line


def test_an_exception_is_told_by_type_and_place(lines: Lines) -> None:
    logging.getLogger("bridge").critical("stopping", exc_info=raised(KeyError(CANARY)))
    (line,) = lines()
    assert CANARY not in line
    assert "KeyError" in line
    assert "test_log_lines.py:" in line


@pytest.mark.parametrize("evil", ["a\nb", "a\r\nFAKE ERROR bridge: x", "a\x1b[2Jb", "a\u2028b", "a\u202eb", "a\x00b"])
def test_a_line_is_an_event_whatever_is_in_it(lines: Lines, evil: str) -> None:
    logging.getLogger("bridge").error("receiver %s: refused", evil)
    (line,) = lines()
    assert line.isprintable()


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_lines_are_bounded_and_a_lone_surrogate_does_not_lose_one(kind: str) -> None:
    """Not by a logger: what pytest keeps of a test's lines cannot hold a lone surrogate."""
    for message in ("x" * 1_000_000, "\ud800"):
        record = logging.LogRecord("bridge", logging.ERROR, __file__, 1, message, None, None)
        line = FORMATS[kind]().format(record)
        assert 0 < len(line.encode()) < 3000


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_message_that_does_not_fit_its_arguments_loses_no_line(kind: str) -> None:
    record = logging.LogRecord("bridge", logging.ERROR, __file__, 1, "%d studies", (CANARY,), None)
    assert "a message that cannot be formatted" in FORMATS[kind]().format(record)


def test_json_lines_are_objects_with_known_keys() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATS["json"]())
    log = logging.getLogger("bridge.lines")
    log.addHandler(handler)
    log.warning("source %s was reset", "pacs", extra={"source": "pacs"})
    log.removeHandler(handler)
    told = json.loads(stream.getvalue())
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "WARNING", "logger": "bridge.lines", "thread": "MainThread", "message": "source pacs was reset",
        "source": "pacs",
    }  # fmt: skip


UNCAUGHT = f"""
import sys, threading, warnings
from bridge.telemetry.log_lines import start
start(sys.argv[1], sys.stderr)
def bug(): raise ValueError("{CANARY}")
thread = threading.Thread(target=bug)
thread.start()
thread.join()
warnings.warn("{CANARY}")
class Odd:
    def __del__(self): raise ValueError("{CANARY}")
Odd()
bug()
"""


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_what_nobody_caught_is_told_without_its_text(kind: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", UNCAUGHT, kind],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 1
    assert "CANARY" not in done.stderr
    assert done.stderr.count("ValueError") == 3
    assert len(done.stderr.splitlines()) == 4
