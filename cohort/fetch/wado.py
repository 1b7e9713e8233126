"""Images by WADO-RS (PS3.18 10.4): whole series while most of one is missing, else one instance after another."""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bridge.errors import SourceUnavailable
from bridge.web.answers import can_be_asked, explained, origin, packed_otherwise, retry_after
from bridge.web.multipart import Damaged, Piece, boundary, pieces
from cohort.fetch.folder import ImageFolder, WrongObject
from cohort.fetch.plan import Series
from cohort.fetch.port import Progress, Refused, Stopped

MAXIMUM_OBJECT_BYTES = 2_147_483_648
SLOWEST_BYTES_PER_S = 4_096
"""An answer that comes more slowly than this, after the first minutes, is given up."""

PATIENCE_S = 300.0
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
ACCEPT_PLAIN = 'multipart/related; type="application/dicom"'
"""For servers that know no `transfer-syntax=*`: they may send uncompressed what they hold compressed."""

_UID = re.compile(r"^[0-9A-Za-z][0-9A-Za-z.]{0,63}$")
_NOT_THERE = frozenset({204, 404, 410})
_NEVER = frozenset({400, 401, 403, 405, 406, 415})


@dataclass(frozen=True)
class Access:
    """How the archives of one origin are asked: who we say we are, whom we trust, how long we wait for a byte."""

    auth: httpx.Auth | None = None
    tls: ssl.SSLContext | None = None
    timeout_s: float = 60.0
    transport: httpx.BaseTransport | None = None


@dataclass
class WadoImages:
    """Asks every address of a series, until nothing is missing. Credentials go to the origin they are for alone.

    Redirects are not followed, and the environment's proxies not used. Safe to use from several threads.
    """

    access: Mapping[tuple[str, str, int | None], Access]
    stop: threading.Event
    _clients: dict[tuple[str, str, int | None], httpx.Client] = field(default_factory=dict)
    _plain: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def retrieve(self, series: Series, folder: ImageFolder, progress: Progress) -> None:
        """Brings what is missing of a series. See `cohort.fetch.port.Images`."""
        if not series.addresses:
            raise Refused("no active Endpoint of its study says where to fetch it by WADO-RS")
        failed: SourceUnavailable | Refused | None = None
        for address in series.addresses:
            missing = folder.missing(series)
            if not missing:
                return
            try:
                self._from(address, series, missing, folder, progress)
            except (SourceUnavailable, Refused) as error:
                failed = failed or error
        if failed is not None and folder.missing(series):
            raise failed

    def _from(
        self, address: str, series: Series, missing: Collection[str], folder: ImageFolder, progress: Progress
    ) -> None:
        if not can_be_asked(address):
            raise Refused("the address of its Endpoint is not http:// or https:// with a host")
        if not all(_UID.match(u) for u in (series.study_instance_uid, series.series_instance_uid, *missing)):
            raise Refused("one of its UIDs is none, and cannot be part of an address")
        base = f"{address}/studies/{series.study_instance_uid}/series/{series.series_instance_uid}"
        if 2 * len(missing) > len(series.instances):
            self._get(address, base, series, folder, progress)
            return
        for uid in sorted(missing):
            self._get(address, f"{base}/instances/{uid}", series, folder, progress)

    def _get(self, address: str, url: str, series: Series, folder: ImageFolder, progress: Progress) -> None:
        if self.stop.is_set():
            raise Stopped
        client, access = self._client(address)
        plain = address in self._plain
        try:
            with client.stream("GET", url, headers={"Accept": ACCEPT_PLAIN if plain else ACCEPT}) as response:
                if response.status_code == 406 and not plain:
                    self._plain.add(address)
                elif response.status_code == 200:
                    self._take(response, access, series, folder, progress)
                    return
                else:
                    self._refused(response, address)
                    return
        except httpx.HTTPError as error:
            said = explained(error, setting="its Endpoint", product="the archive", timeout_s=access.timeout_s)
            raise SourceUnavailable(f"{_host(address)}: {said}") from None
        except Damaged as error:
            raise SourceUnavailable(f"{_host(address)}: the answer is damaged: {error}") from None
        self._get(address, url, series, folder, progress)

    def _refused(self, response: httpx.Response, address: str) -> None:
        code = response.status_code
        if code in _NOT_THERE:
            return
        if code in _NEVER or 300 <= code < 400:
            hint = _HINTS.get(code, ": redirects are not followed" if code < 400 else "")
            raise Refused(f"{_host(address)}: HTTP {code}{hint}", all_of_it=code in (401, 403))
        raise SourceUnavailable(f"{_host(address)}: HTTP {code}", retry_after(response))

    def _take(
        self, response: httpx.Response, access: Access, series: Series, folder: ImageFolder, progress: Progress
    ) -> None:
        if packed_otherwise(response):
            raise Damaged("it is packed in another way than gzip")
        found = boundary(response.headers.get("content-type", ""))
        chunks = self._chunks(response, access)
        parts = pieces(chunks, found) if found else _single(response, chunks)
        writer = _Writer(series, folder, progress)
        try:
            for piece in parts:
                writer.write(piece)
        finally:
            writer.discard()

    def _chunks(self, response: httpx.Response, access: Access) -> Iterator[bytes]:
        started, size = time.monotonic(), 0
        for chunk in response.iter_bytes():
            if self.stop.is_set():
                raise Stopped
            size += len(chunk)
            waited = time.monotonic() - started - max(PATIENCE_S, access.timeout_s)
            if waited > 0 and size < waited * SLOWEST_BYTES_PER_S:
                raise Damaged("it arrives too slowly: given up")
            yield chunk

    def _client(self, address: str) -> tuple[httpx.Client, Access]:
        where = origin(address)
        access = self.access.get(where, Access())
        with self._lock:
            if where not in self._clients:
                self._clients[where] = httpx.Client(
                    auth=access.auth,
                    verify=access.tls if access.tls is not None else True,
                    timeout=access.timeout_s,
                    headers={"Accept-Encoding": "identity"},
                    follow_redirects=False,
                    transport=access.transport,
                    trust_env=False,
                )
            return self._clients[where], access


class _Writer:
    """Parts of an answer into files; what is not wanted is read and left."""

    def __init__(self, series: Series, folder: ImageFolder, progress: Progress) -> None:
        self._series, self._folder, self._progress = series, folder, progress
        self._part: Path | None = None
        self._descriptor, self._size = -1, 0

    def write(self, piece: Piece) -> None:
        if self._part is None:
            self._part = self._folder.part()
            self._descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._size = 0
        self._size += len(piece.content)
        if self._size > MAXIMUM_OBJECT_BYTES:
            raise Refused(f"an object is larger than {MAXIMUM_OBJECT_BYTES >> 20} MiB")
        view = memoryview(piece.content)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._progress.received(len(piece.content))
        if piece.last:
            self._finished(self._part)

    def _finished(self, part: Path) -> None:
        os.fsync(self._descriptor)
        self._close()
        try:
            if self._folder.keep(part, self._series):
                self._progress.kept()
        except WrongObject as error:
            self._progress.refused(str(error))
        self.discard()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Leaves no unfinished part behind."""
        self._close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)
            self._part = None


def _single(response: httpx.Response, chunks: Iterator[bytes]) -> Iterator[Piece]:
    """Of servers that answer one instance without wrapping it."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/dicom":
        raise Refused("it answers something else than DICOM: is its address that of WADO-RS?")
    for chunk in chunks:
        yield Piece(chunk, False)
    yield Piece(b"", True)


def _host(address: str) -> str:
    scheme, host, port = origin(address)
    return f"{scheme}://{host}:{port}"


_HINTS = {
    401: ": username and password, or the token, are not accepted: see [[fetch]] in the configuration",
    403: ": this user may not do this: see [[fetch]] in the configuration",
}
