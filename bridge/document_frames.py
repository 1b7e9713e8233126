"""What passes between the bridge and a process that reads documents: JSON and bytes, of lengths that are said before.

Nothing of it can be code: the process that reads is not trusted.
"""

from __future__ import annotations

import struct
import time
from socket import socket
from typing import Any

import orjson

_LENGTHS = struct.Struct("!II")
MOST_JSON, AT_ONCE = 65_536, 65_536
MOST_CONTENT = 67_108_864
"""More than any object, or what is kept of one, has."""


def send(line: socket, told: dict[str, Any], content: bytes = b"") -> None:
    """Writes one message. Raises TimeoutError past the time that the socket has, OSError when nobody listens."""
    head = orjson.dumps(told)
    first = content[:AT_ONCE]  # so that who reads is woken once for most messages
    line.sendall(_LENGTHS.pack(len(head), len(content)) + head + first)
    line.sendall(memoryview(content)[len(first) :])


def receive(line: socket, until: float | None = None) -> tuple[dict[str, Any], bytes]:
    """The next message. `until` of the monotonic clock, None: for ever.

    Raises  TimeoutError; EOFError when the other side is gone; ValueError when it sends what is no message
    """
    of_json, of_content = _LENGTHS.unpack(_exactly(line, _LENGTHS.size, until))
    if of_json > MOST_JSON or of_content > MOST_CONTENT:
        raise ValueError("a message is longer than any")
    told = orjson.loads(_exactly(line, of_json, until))
    if not isinstance(told, dict):
        raise ValueError("a message is no JSON object")
    return told, _exactly(line, of_content, until)


def _exactly(line: socket, number: int, until: float | None) -> bytes:
    found = bytearray(number)
    left = memoryview(found)
    while left:
        if until is not None:
            line.settimeout(max(0.001, until - time.monotonic()))
        came = line.recv_into(left)
        if not came:
            raise EOFError
        left = left[came:]
    return bytes(found)
