"""A WADO-RS service of files, over httpx without a socket: answers as PS3.18 10.4 says, or fails as a test tells it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
from pydicom import dcmread

BOUNDARY = "limit between parts"
Answer = Callable[[httpx.Request, Sequence[bytes]], httpx.Response | None]
"""What a test answers instead; None: nothing special."""


class WadoFake(httpx.BaseTransport):
    """Holds files. `asked` are the paths, `headers` the requests' headers; `instead` is asked first."""

    def __init__(self, files: Sequence[Path], instead: Answer = lambda _request, _files: None) -> None:
        self.held: dict[tuple[str, str, str], bytes] = {}
        for file in files:
            header = dcmread(file, specific_tags=["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
            uids = header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID
            self.held[uids] = file.read_bytes()
        self.instead = instead
        self.asked: list[str] = []
        self.requests: list[httpx.Request] = []
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.asked.append(request.url.path)
            self.requests.append(request)
        steps = request.url.path.split("/studies/")[1].split("/")
        wanted = [content for uids, content in sorted(self.held.items()) if list(uids)[: len(steps[::2])] == steps[::2]]
        special = self.instead(request, wanted)
        if special is not None:
            return special
        return multipart(wanted) if wanted else httpx.Response(404)


def multipart(parts: Sequence[bytes], cut: int | None = None, piece: int = 1000) -> httpx.Response:
    """The parts as an answer in pieces; `cut` ends it after so many bytes, as a lost connection does."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
    content_type = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'

    def stream() -> Iterator[bytes]:
        whole = body if cut is None else body[:cut]
        for start in range(0, len(whole), piece):
            yield whole[start : start + piece]
        if cut is not None:
            raise httpx.RemoteProtocolError("peer closed connection")

    return httpx.Response(200, headers={"Content-Type": content_type}, content=stream())
