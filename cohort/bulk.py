"""Bulk Data Access ($export) as a client: ask, wait, download; to be gone on with after a kill at any point.

From    FHIR Bulk Data Access 1.0 to 3.0: kick-off, status, manifest, output, deleted and error files
Never   follows redirects; shows credentials to another origin; asks over http but on this machine
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson

from bridge.errors import ConfigError, SourceUnavailable
from bridge.web.answers import (
    Unusable,
    bounded,
    can_be_asked,
    explained,
    loopback,
    packed_otherwise,
    retry_after,
    same_origin,
)  # fmt: skip
from cohort.bulk_job import ExportFile, Job, JobFolder

MANIFEST_BYTES = 67_108_864
MAXIMUM_FILES = 100_000
MAXIMUM_PAGES = 1_000
FREE_BYTES = 536_870_912
"""So much of the disk stays free."""

ATTEMPTS = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
BUSY = frozenset({408, 425, 429, 502, 503, 504})
SIGN_IN = frozenset({401, 403})
KINDS = {"output": "output", "deleted": "deleted", "error": "error", "outcome": "error"}


class _Cut(SourceUnavailable):
    """An answer that broke off: what was asked is asked again."""


Told = Callable[[str, int, int], None]
"""stage, done, of how many (0: unknown)."""


@dataclass(frozen=True)
class ExportRequest:
    """What to ask of a server. level: system, patient or group/ID; since: instant, or "" for everything."""

    url: str
    level: str = "system"
    types: tuple[str, ...] = ()
    since: str = ""


@dataclass(frozen=True)
class Exported:
    """Files of a finished export, and the instant it is true of."""

    output: tuple[Path, ...]
    deleted: tuple[Path, ...]
    errors: tuple[Path, ...]
    transaction_time: datetime


class BulkExport:
    """One export of one server into a folder. `told` is told what is done; `wait` sleeps (seconds).

    Raises  ConfigError for an address that may not be asked or a request the server refuses, SourceUnavailable when
            the server does not answer as it should; what is finished is kept for the next time
    """

    def __init__(
        self,
        request: ExportRequest,
        folder: JobFolder,
        *,
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        told: Told = lambda _stage, _done, _of: None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._request, self._folder, self._told, self._wait = request, folder, told, wait
        self._base, self._auth, self._timeout_s = request.url.rstrip("/"), auth, timeout_s
        if not can_be_asked(request.url) or not _safe(request.url):
            raise ConfigError("--from-server: allowed are https://HOST/FHIR-BASE, and http:// on this machine alone")
        self._client = httpx.Client(verify=tls or True, timeout=timeout_s, follow_redirects=False, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def run(self) -> Exported:
        """Every file of the export, on disk."""
        job = self._folder.job() or self._kick_off()
        if not job.transaction_time:
            job = self._folder.remember(self._complete(job))
        for number, file in enumerate(job.files):
            self._told("Downloading", number, len(job.files))
            if number not in job.finished:
                self._download(job, number, file)
        self._told("Downloading", len(job.files), len(job.files))
        paths = {kind: [self._folder.file(n) for n, f in enumerate(job.files) if f.kind == kind] for kind in KINDS}
        when = datetime.fromisoformat(job.transaction_time)
        return Exported(tuple(paths["output"]), tuple(paths["deleted"]), tuple(paths["error"]), when)

    def finish(self) -> None:
        """After the files are loaded: the server may drop its own, the next export asks for what changed since."""
        job = self._folder.job()
        if job is None:
            return
        with (
            suppress(httpx.HTTPError),  # a courtesy: the export expires by itself
            self._client.stream("DELETE", job.status_url, auth=self._credentials(job.status_url)),
        ):
            pass
        self._folder.loaded(job.transaction_time)

    def _kick_off(self) -> Job:
        level, _, group = self._request.level.partition("/")
        place = {"system": "", "patient": "/Patient"}.get(level, f"/Group/{group}")
        wanted = {"_type": ",".join(self._request.types), "_since": self._request.since}
        query = urlencode({"_outputFormat": "application/fhir+ndjson"} | {n: v for n, v in wanted.items() if v})
        headers = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
        with self._asked("GET", f"{self._base}{place}/$export?{query}", headers) as response:
            if response.status_code != 202:
                raise ConfigError(
                    f"--from-server: $export is refused (HTTP {response.status_code}): "
                    "check the address, --level, --type, and what the server lets us read"
                )
            location = response.headers.get("content-location", "")
        if not location or not same_origin(location, self._base):
            raise SourceUnavailable("$export: the answer names no status address (Content-Location) on the same server")
        return self._folder.remember(Job(str(httpx.URL(self._base + "/").join(location))))

    def _complete(self, job: Job) -> Job:
        """Waits until the export is complete. The job as its manifest has it."""
        pause = FIRST_WAIT_S
        while True:
            with self._asked("GET", job.status_url, {"Accept": "application/json"}) as response:
                if response.status_code == 202:
                    self._told(_progress(response), 0, 0)
                    self._wait(retry_after(response) or pause)
                    pause = min(pause * 1.5, LONGEST_WAIT_S)
                    continue
                if response.status_code != 200:
                    if response.status_code not in BUSY | SIGN_IN:
                        self._folder.forget()
                    raise SourceUnavailable(
                        f"$export: the server gave the export up (HTTP {response.status_code}); ask again"
                    )
                manifest = self._json(response)
            return self._files(job, manifest)

    def _files(self, job: Job, manifest: Any) -> Job:
        files: list[ExportFile] = []
        first = manifest
        for _ in range(MAXIMUM_PAGES):
            files += _listed(manifest)
            if len(files) > MAXIMUM_FILES:
                raise SourceUnavailable(f"$export: the manifest lists more than {MAXIMUM_FILES} files")
            following = _next(manifest)
            if not following:
                break
            if not same_origin(following, self._base):
                raise SourceUnavailable("$export: the manifest goes on at another server")
            with self._asked("GET", following, {"Accept": "application/json"}) as response:
                if response.status_code != 200:
                    raise SourceUnavailable(f"$export: a page of the manifest is missing (HTTP {response.status_code})")
                manifest = self._json(response)
        when, token = first.get("transactionTime"), first.get("requiresAccessToken")
        try:
            zoned = datetime.fromisoformat(when).tzinfo is not None
        except (TypeError, ValueError):
            zoned = False
        if not zoned or not isinstance(token, bool):
            raise SourceUnavailable("$export: the manifest lacks transactionTime or requiresAccessToken")
        return replace(job, transaction_time=when, needs_token=token, files=tuple(files))

    def _download(self, job: Job, number: int, file: ExportFile) -> None:
        if not _safe(file.url):
            raise SourceUnavailable("$export: a file's address is neither https nor on this machine: refused")
        signed = job.needs_token and same_origin(file.url, self._base)
        for attempt in range(ATTEMPTS):
            if attempt:
                self._wait(FIRST_WAIT_S * 2**attempt)
            try:
                lines = self._fetched(file, number, signed=signed)
            except _Cut:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            if file.count is None or lines == file.count:
                return
            self._folder.file(number).unlink()
        raise SourceUnavailable(f"$export: file {number + 1} has not as many lines as its manifest says")

    def _fetched(self, file: ExportFile, number: int, *, signed: bool) -> int:
        """The file on disk; how many lines it has that are not blank."""
        path = self._folder.file(number)
        part = path.with_suffix(".part")
        headers = {"Accept": "application/fhir+ndjson"}
        with self._asked("GET", file.url, headers, signed=signed) as response:
            if response.status_code in (404, 410):
                self._folder.forget()
                raise SourceUnavailable("$export: a file is gone from the server; ask again for a new export")
            if response.status_code != 200 or packed_otherwise(response):
                raise SourceUnavailable(f"$export: a file cannot be had (HTTP {response.status_code})")
            with part.open("wb") as out:
                lines = self._copied(response, out)
                out.flush()
                os.fsync(out.fileno())
        part.rename(path)
        return lines

    def _copied(self, response: httpx.Response, out: Any) -> int:
        lines, blank = 0, True
        for chunk in response.iter_bytes():
            if self._folder.free_bytes() < FREE_BYTES + len(chunk):
                raise SourceUnavailable("$export: the disk is nearly full; make room and ask again")
            out.write(chunk)
            first, *rest = chunk.split(b"\n")
            blank = blank and not first.strip()
            for piece in rest:
                lines += not blank
                blank = not piece.strip()
        return lines + (not blank)

    @contextmanager
    def _asked(
        self, method: str, url: str, headers: dict[str, str], *, signed: bool = True
    ) -> Iterator[httpx.Response]:
        """An answer, asked again while the server is busy or away."""
        begun = False
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                auth = self._credentials(url) if signed else None
                with self._client.stream(method, url, headers=headers, auth=auth) as response:
                    if response.status_code not in BUSY or last:
                        begun = True
                        yield response
                        return
                    pause = retry_after(response)
            except httpx.HTTPError as error:
                if begun or last:
                    said = explained(
                        error, setting="--from-server", product="the FHIR server", timeout_s=self._timeout_s
                    )
                    raise (_Cut if begun else SourceUnavailable)(f"$export: {said}") from None
                pause = None
            except httpx.InvalidURL:
                raise SourceUnavailable("$export: the server gave an address that is none") from None
            self._wait(pause or FIRST_WAIT_S * 2**attempt)

    def _credentials(self, url: str) -> httpx.Auth | None:
        return self._auth if same_origin(url, self._base) else None

    def _json(self, response: httpx.Response) -> Any:
        try:
            found = orjson.loads(b"".join(bounded(response, MANIFEST_BYTES, self._timeout_s)))
        except (Unusable, orjson.JSONDecodeError):
            found = None
        if not isinstance(found, dict):
            raise SourceUnavailable("$export: the manifest is not a JSON object, or too large")
        return found


def _listed(manifest: Any) -> Iterator[ExportFile]:
    for name, kind in KINDS.items():
        listed = manifest.get(name) or ()
        for one in listed if isinstance(listed, list) else ():
            url, count = (one.get("url"), one.get("count")) if isinstance(one, dict) else (None, None)
            if not isinstance(url, str):
                raise SourceUnavailable("$export: the manifest lists a file without an address")
            yield ExportFile(kind, str(one.get("type", "")), url, count if isinstance(count, int) else None)


def _next(manifest: Any) -> str:
    links = manifest.get("link")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next":
            return str(link.get("url", ""))
    return ""


def _progress(response: httpx.Response) -> str:
    """X-Progress, as much of it as a line can show."""
    said = "".join(c for c in response.headers.get("x-progress", "") if c.isprintable())[:100]
    return f"The server works: {said}" if said else "The server works"


def _safe(url: str) -> bool:
    return can_be_asked(url) and (httpx.URL(url).scheme == "https" or loopback(url))


def outcomes(paths: Iterable[Path]) -> Iterator[tuple[int, str]]:
    """(line number, severity and code) of the issues in error files; their texts may name people and are left out."""
    for path in paths:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    issues = orjson.loads(line)["issue"]
                    yield from ((number, f"{str(i['severity'])[:20]}: {str(i['code'])[:40]}") for i in issues)
                except (orjson.JSONDecodeError, KeyError, TypeError):
                    yield number, "not an OperationOutcome"
