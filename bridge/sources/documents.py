"""Small JSON documents on disk, under names that are digests: what a service accepted and must not forget."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from bridge.errors import SourceUnavailable
from bridge.sources.spool import sync_folder

log = logging.getLogger("bridge.receiver")


class Documents:
    """One file for each key. Every change is whole and survives a crash once its call returns.

    Used under its owner's lock. Raises SourceUnavailable when the disk refuses, or there would be more than `maximum`
    documents or one of more than `maximum_bytes`.
    """

    def __init__(self, folder: Path, *, maximum: int, maximum_bytes: int) -> None:
        self._folder, self._maximum, self._maximum_bytes = folder, maximum, maximum_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in folder.glob("*.part"):
            part.unlink(missing_ok=True)
        self._names = {path.name for path in folder.glob("*.json")}

    def __len__(self) -> int:
        return len(self._names)

    def put(self, key: str, document: Mapping[str, Any]) -> None:
        """Keeps a document, in place of an older one of the same key."""
        name, content = _name(key), orjson.dumps(document)
        if len(content) > self._maximum_bytes:
            raise SourceUnavailable(f"a document for {self._folder.name} is too large")
        if name not in self._names and len(self._names) >= self._maximum:
            raise SourceUnavailable(f"there are too many documents in {self._folder.name}")
        part = self._folder / f"{name}.part"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            part.rename(self._folder / name)
            sync_folder(self._folder)
        except OSError as error:
            raise self._refused(error) from None
        self._names.add(name)

    def get(self, key: str) -> dict[str, Any] | None:
        """The document of a key, or None."""
        name = _name(key)
        return self._read(self._folder / name) if name in self._names else None

    def remove(self, key: str) -> None:
        """Forgets a document; that it may come back after a crash must be harmless."""
        name = _name(key)
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._refused(error) from None
        self._names.discard(name)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every document that can be read, in no order that means anything."""
        for name in sorted(self._names):
            document = self._read(self._folder / name)
            if document is not None:
                yield document

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise self._refused(error) from None
        try:
            found = orjson.loads(content)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            log.error("the document %s/%s is damaged: it is passed over", path.parent.name, path.name)
            return None
        return found

    def _refused(self, error: OSError) -> SourceUnavailable:
        return SourceUnavailable(f"documents of {self._folder.name} cannot be kept or read: {error.strerror}")


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32] + ".json"
