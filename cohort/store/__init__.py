"""Where the bytes of a lake are kept: a folder, or an S3-compatible store. One port, the same for both.

Objects are named by keys with `/` between their parts. What is kept under a key is whole or not there at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """One object. Units: `size` bytes; `modified` seconds since the epoch, by the store's clock."""

    key: str
    size: int
    modified: float


class Store(Protocol):
    """Every method raises SinkUnavailable when the store does not answer, FileNotFoundError for a key that is not there
    (`delete` does not), OSError when this machine's disk refuses."""

    settle_s: float
    """Objects that no manifest names are left alone for so long: another machine may be about to name them."""

    def check(self) -> None:
        """Raises ConfigError when the store does not keep the promises of `create` and `replace`."""

    def read(self, key: str) -> tuple[bytes, str]:
        """The content, and a tag that changes with it."""

    def list(self, folder: str) -> list[Entry]:
        """Every object whose key begins with `folder/`, by key."""

    def put(self, key: str, content: bytes) -> None:
        """Durable when this returns; replaces what was there."""

    def create(self, key: str, content: bytes) -> bool:
        """False, and nothing is changed, when there is one already. Of several at the same time one succeeds."""

    def replace(self, key: str, content: bytes, tag: str) -> bool:
        """False, and nothing is changed, unless what is there has this tag. The tag "": unless nothing is there."""

    def delete(self, keys: Iterable[str]) -> None:
        """In any order. Objects that are not there are no error."""

    def send(self, path: Path, key: str) -> None:
        """Keeps a file of this machine under a key: durable when this returns. The file may have been moved there."""

    def fetch(self, keys: Iterable[str], folder: Path) -> Sequence[Path]:
        """The objects as files, in the order asked: where the store has them on this machine already, else copied into
        the folder under the last part of their keys."""

    def sweep(self, before: float) -> None:
        """Removes what was begun before that moment (seconds since the epoch) and never became an object."""
