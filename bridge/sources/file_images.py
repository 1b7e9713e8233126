"""The images of studies from files of ours, as WADO-RS would give them (PS3.18 10.4): whole objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from secrets import token_hex

from bridge.errors import SourceUnavailable
from bridge.translate.headers import Headers

CHUNK_BYTES = 1_048_576
_STEPS = ("studies", "series", "instances")
_KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


class OpenedFiles:
    """Files on their way, one part for each (RFC 2387)."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files, self._limit = files, token_hex(20)
        self.content_type = f'multipart/related; type="application/dicom"; boundary={self._limit}'

    def chunks(self) -> Iterator[bytes]:
        for path in self._files:
            yield f"--{self._limit}\r\nContent-Type: application/dicom\r\n\r\n".encode()
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
            yield b"\r\n"
        yield f"--{self._limit}--\r\n".encode()

    def close(self) -> None:
        """Each file was open while it was read."""


class FileImages:
    """One source of files. `snapshot` gives the headers that it held of a study when it was read, `instance_files` the
    paths below `root` of instances by their SOP Instance UIDs. Metadata and frames are not given."""

    def __init__(
        self,
        name: str,
        root: Path,
        snapshot: Callable[[str], Sequence[Headers]],
        instance_files: Callable[[Sequence[str]], Mapping[str, Sequence[str]]],
    ) -> None:
        self._name, self._root, self._snapshot, self._instance_files = name, root, snapshot, instance_files

    def opened(self, path: str, accept: str) -> OpenedFiles | None:
        """What lies under a path that begins with /studies/; None when there is nothing.

        Raises  SourceUnavailable  a file has gone since the study was read
        """
        steps = path.strip("/").split("/")
        if tuple(steps[::2]) != _STEPS[: len(steps[::2])] or len(steps) % 2:
            return None
        wanted = dict(zip(_KEYWORDS, steps[1::2], strict=False))
        held = [h for h in self._snapshot(steps[1]) if all(h.text(k) == uid for k, uid in wanted.items())]
        files = self._instance_files([h.text("SOPInstanceUID") for h in held])
        paths = [self._root / files[uid][0] for uid in sorted(files)]
        if len(paths) != len(held) or not all(p.is_file() for p in paths):
            raise SourceUnavailable(f"source {self._name}: files of the study have changed since it was read")
        return OpenedFiles(paths) if paths else None
