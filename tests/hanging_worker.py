"""The process that reads documents, with a library that hangs, dies or lies over objects that hold these words."""

from __future__ import annotations

import os
import signal
import time
from tempfile import TemporaryFile

from bridge import document_worker
from bridge.documents.objects import kept_part
from bridge.errors import InvalidFile
from bridge.model import InstanceName

HANGS, SPINS, DIES, LIES, TELLS = b"HANG", b"SPIN", b"DIE!", b"LIE!", b"TELL"


def main() -> None:
    document_worker.main(_read)


def _read(content: bytes, name: InstanceName | None) -> bytes:
    while HANGS in content:
        time.sleep(1)
    while SPINS in content:
        pass
    if DIES in content:
        os.kill(os.getpid(), signal.SIGSEGV)
    if LIES in content:
        os.write(0, b"\x80\x05cposix\nsystem\n")  # how a pickle begins that runs a command
    if TELLS in content:
        raise InvalidFile(f"process {os.getpid()}, environment {sorted(os.environ.keys() - {'LC_CTYPE'})}, {_writes()}")
    return kept_part(content, name)


def _writes() -> str:
    """Whether it can write a file."""
    try:
        with TemporaryFile() as file:
            file.write(b"x")
    except OSError:
        return "writes nothing"
    return "writes"
