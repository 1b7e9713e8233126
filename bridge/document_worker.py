"""The process that document objects are read in: it limits itself, reads one after another, ends with who asks."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable

from bridge.confined import allow_cpu, confine, end_with_asker
from bridge.document_frames import receive, send
from bridge.documents.objects import kept_part
from bridge.errors import InvalidFile
from bridge.model import InstanceName

OUT_OF_MEMORY = 9
"""The exit status that says so: there may be no memory left for an answer."""

Read = Callable[[bytes, InstanceName | None], bytes]


def main(read: Read = kept_part) -> None:
    """Answers an object and {"name", "cpu_s"} with {"kept": "same"}, or {"kept": "other"} and what is kept of it, or
    {"error"}. Its argument: bytes of address space."""
    asker = socket.socket(fileno=0)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # who asks is told to stop as well, and ends this one
    end_with_asker(asker.fileno())
    confine(int(sys.argv[3]))
    try:
        send(asker, {"ready": True})
        while True:
            asked, content = receive(asker)
            allow_cpu(asked["cpu_s"])
            name = InstanceName(*asked["name"]) if asked["name"] else None
            send(asker, *_answer(read, content, name))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (EOFError, OSError):
        return  # nobody asks any more


def _answer(read: Read, content: bytes, name: InstanceName | None) -> tuple[dict[str, str], bytes]:
    try:
        kept = read(content, name)
    except InvalidFile as error:
        return {"error": str(error)}, b""
    return ({"kept": "same"}, b"") if kept is content else ({"kept": "other"}, kept)
