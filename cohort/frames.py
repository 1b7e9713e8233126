"""What passes between who asks and the process of a query: messages of lengths that are said before."""

from __future__ import annotations

from typing import IO, Any

_LENGTH = 8


def send(pipe: IO[bytes] | Any, content: bytes) -> None:
    """Writes one message. Raises OSError when nobody listens."""
    pipe.write(len(content).to_bytes(_LENGTH, "big"))
    pipe.write(content)
    pipe.flush()


def receive(pipe: IO[bytes] | Any) -> bytes | None:
    """The next message, None when the other side is gone."""
    length = pipe.read(_LENGTH)
    if len(length) < _LENGTH:
        return None
    content: bytes = pipe.read(number := int.from_bytes(length, "big"))
    return content if len(content) == number else None
