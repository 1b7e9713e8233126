"""Log lines: one for each event, as text or JSON, of which every part is on a list of what may be told.

Our own messages name sources, keywords and places, never a value. Those of libraries quote what they were given
(URLs, identifiers, attributes), and so do the texts of exceptions: of them the logger, the type and the place are told.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

import orjson

from bridge.errors import place

OURS = ("bridge", "cohort")
FIELDS = ("source", "sink", "queue", "error", "place")
"""What a record may carry besides its message (`extra`): names of the configuration, a type, a place in the code."""

LONGEST = 2000
QUIET = ("httpx", "httpcore", "pynetdicom", "uvicorn.access", "uvicorn.error", "alembic")
"""Libraries of which warnings and errors alone are told."""

log = logging.getLogger("bridge")


def told(record: logging.LogRecord) -> dict[str, str]:
    """The parts of a record that may be told: time, level, logger, thread, message, and those of FIELDS that it has."""
    ours = record.name.partition(".")[0] in OURS
    parts = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "thread": record.threadName or "",
        "message": _message(record) if ours else "a message of a library, left out",
    }
    if ours:
        parts |= {name: str(value) for name in FIELDS if (value := getattr(record, name, None)) is not None}
    else:
        parts["place"] = f"{record.filename}:{record.lineno}"
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        parts |= {"error": type(error).__name__} | ({"place": place(error)} if error.__traceback__ else {})
    return {name: _printable(value) for name, value in parts.items()}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return "a message that cannot be formatted"


def _printable(text: str) -> str:
    """On one line, without control characters (nor U+2028, directions of writing, lone surrogates), and bounded."""
    shown = text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:LONGEST])
    return shown[:LONGEST]


class JsonLines(logging.Formatter):
    """One JSON object for each event."""

    def format(self, record: logging.LogRecord) -> str:
        return orjson.dumps(told(record)).decode("utf-8")


class TextLines(logging.Formatter):
    """`time level logger: message`, then what else is told as `name=value`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        parts = told(record)
        line = f"{parts.pop('time')} {parts.pop('level')} {parts.pop('logger')}: {parts.pop('message')}"
        del parts["thread"]
        return " ".join([line, *(f"{name}={value}" for name, value in parts.items() if value not in line)])


FORMATS: dict[str, Callable[[], logging.Formatter]] = {"text": TextLines, "json": JsonLines}


def start(kind: str, stream: TextIO) -> None:
    """All logs of the process, warnings and uncaught exceptions too, go to `stream` in one of FORMATS."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATS[kind]())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    for quiet in QUIET:
        logging.getLogger(quiet).setLevel(logging.WARNING)
    sys.excepthook = _uncaught
    sys.unraisablehook = lambda raised: _uncaught(raised.exc_type, raised.exc_value, raised.exc_traceback)
    threading.excepthook = lambda raised: _uncaught(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    error = error if error is not None else kind()
    log.critical("unexpected error: please report this", exc_info=(kind, error, trace))
