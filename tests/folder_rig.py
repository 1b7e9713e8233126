"""A watched folder with its state, looked at as the loops do."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from bridge.ports import ChangePage
from bridge.sources.folder import Folder
from bridge.state import State

NOW = 4_000_000_000.0


class FolderRig:
    """`now` is the time by the folder's clock; tests move it."""

    def __init__(self, tmp_path: Path, *, settle_s: float = 1.0, maximum_unpacked_bytes: int = 1024**3) -> None:
        self.root = tmp_path / "inbox"
        self.root.mkdir()
        self.now = NOW
        self.state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
        self._options = {"settle_s": settle_s, "maximum_unpacked_bytes": maximum_unpacked_bytes}
        self.restart()

    def restart(self) -> None:
        """As after the end of the process: nothing is left but the state."""
        self.folder = Folder("inbox", self.root, self.state, lambda: self.now, **self._options)  # type: ignore[arg-type]

    def look(self) -> ChangePage:
        """One page, committed."""
        page = self.folder.changes(self.state.position("inbox"))
        self.state.commit_page("inbox", page, self.now, 0, 0)
        return page

    def follow(self) -> set[str]:
        """The studies named until the folder is caught up."""
        named: set[str] = set()
        for _ in range(100):
            page = self.look()
            named |= page.studies
            if page.caught_up:
                return named
        raise AssertionError("the folder is never caught up")

    def parked(self) -> dict[str, str]:
        return {i.key: i.error for i in self.state.items(parked=True)}

    def held(self, study: str) -> set[str]:
        return {h.text("SOPInstanceUID") for h in self.folder.read(study).instances}


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """A deflated zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_bytes(files: Mapping[str, bytes], mode: str = "w:gz", tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive, gzipped unless told otherwise."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tar_format) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
