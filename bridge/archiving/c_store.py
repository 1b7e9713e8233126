"""Documents to an archive by C-STORE (PS3.4 B)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bridge.archiving.verdict import verdict
from bridge.errors import ProjectError, RefusedByServer
from bridge.model import Document
from bridge.sources.peer import Peer
from bridge.sources.scu import Sender, Sent


class CStoreArchive:
    """One archive that takes objects by C-STORE. `folder` is its own: documents lie there while they are sent."""

    def __init__(self, peer: Peer, folder: Path) -> None:
        self._sender, self._folder = Sender(peer), folder

    def store(self, study_instance_uid: str, documents: Sequence[Document]) -> list[ProjectError | None]:
        """None for what the archive has, else why not. Raises Unavailable when it takes nothing now."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._empty()
        try:
            return [_outcome(sent) for sent in self._sender.send([self._written(d) for d in documents])]
        finally:
            self._empty()

    def _written(self, document: Document) -> Path:
        path = self._folder / f"{len(list(self._folder.iterdir()))}.dcm"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(document.content)
        return path

    def _empty(self) -> None:
        """Also of what a killed process left."""
        for path in self._folder.glob("*.dcm"):
            path.unlink(missing_ok=True)


def _outcome(sent: Sent) -> ProjectError | None:
    return RefusedByServer(sent.problem) if sent.status is None else verdict(sent.status)
