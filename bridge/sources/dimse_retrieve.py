"""Objects of one archive by C-GET or C-MOVE, kept in a spool of their own: only what is missing is fetched."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from bridge.errors import InvalidFile, SourceUnavailable
from bridge.model import Rejection
from bridge.sources.dimse_lines import Lines
from bridge.sources.identifier import encoded
from bridge.sources.object_files import CANNOT_UNDERSTAND, SUCCESS, Arrived
from bridge.sources.part10 import read_headers
from bridge.sources.scu import STUDY_ROOT_GET, STUDY_ROOT_MOVE, Proposed, Retrieved
from bridge.sources.spool import Spool
from bridge.sources.upper_layer import MAXIMUM_CONTEXTS
from bridge.translate.headers import Headers

ATTEMPTS = 2
BATCH = 100
"""Instances named in one request."""

PROVEN_S = 600.0
"""So long after objects came by C-MOVE, one that brings nothing is the instances' fault, not the way's."""

UNFINISHED_S = 86_400.0

LATE_S = 60.0
"""Objects that come so long after their C-MOVE ended are still taken for its."""

_DOCUMENT = "1.2.840.10008.5.1.4.1.1.88."
_UNKNOWN_DESTINATION = 0xA801
_NOT_NOW = frozenset({0xA700, 0xA701, 0x0122, 0x0124, 0xFE00})
"""Out of resources, not supported, not authorized, cancelled: nothing is known of the instances yet."""

_DATA_SET_DOES_NOT_MATCH = 0xA900
_SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    JPEGLSLossless,
    DeflatedExplicitVRLittleEndian,
)
"""Asked for apart, so that objects come as the archive keeps them: nothing has to be converted."""

_USUAL = """
1 1.1 1.2 1.3 2 2.1 3.1 4 4.1 6.1 7 7.2 7.4 11.1 12.1 12.2 13.1.3 20 66.4 88.11 88.22 88.33 88.34 88.59 88.67 104.1 128
481.1 481.2 481.3 481.5
"""
_USUAL_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{leaf}" for leaf in _USUAL.split())
"""Asked for when the archive does not say what it holds."""


class Retrieve(StrEnum):
    """How an archive is read: by its answers to queries alone, or with objects by C-MOVE or C-GET."""

    FIND = "find"
    MOVE = "move"
    GET = "get"


class RetrievePolicy(StrEnum):
    """Which objects are retrieved."""

    NONE = "none"
    ONE_PER_SERIES = "one-per-series"
    STRUCTURED_REPORTS_ONLY = "structured-reports-only"
    ALL = "all"


@dataclass(frozen=True)
class Listed:
    """One instance as the archive lists it. `sop_class_uid` "" when it does not say."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str
    instance_number: int

    @property
    def is_report(self) -> bool:
        """A structured report or key object selection; by its modality where its class is not told."""
        return self.sop_class_uid.startswith(_DOCUMENT) if self.sop_class_uid else self.modality in ("SR", "KO")


def storage_contexts(sop_class_uids: Collection[str]) -> list[Proposed]:
    """What to propose beside C-GET so that objects of these classes come as they are kept; of the usual ones if none
    is named."""
    classes = sorted(sop_class_uids) or list(_USUAL_CLASSES)
    syntaxes = _SYNTAXES[: max(1, (MAXIMUM_CONTEXTS - 1) // len(classes))]
    return [Proposed(c, (str(s),), as_scp=True) for c in classes for s in syntaxes][: MAXIMUM_CONTEXTS - 1]


class Objects:
    """The retrieved objects of one archive.

    `destination` is the AE title under which the archive knows our receiver, for C-MOVE. The receiver asks `takes`
    of every object and puts what is ours into our spool. `move_timeout_s` is the longest silence of the archive.
    """

    def __init__(
        self,
        name: str,
        lines: Lines,
        spool: Spool,
        *,
        retrieve: Retrieve,
        policy: RetrievePolicy,
        destination: str,
        move_timeout_s: float,
    ) -> None:
        self._name, self._lines, self._spool = name, lines, spool
        self._retrieve, self._policy = retrieve, policy
        self._destination, self._timeout_s = destination, move_timeout_s
        self._lock = threading.Lock()
        self._moving: Counter[str] = Counter()
        self._late: dict[str, float] = {}
        self._proven_at = float("-inf")
        self._swept = False

    def takes(self, calling_ae_title: str, move_originator: str, study_instance_uid: str) -> Spool | None:
        """Our spool, for an object of a study that is being moved from the archive at our request.

        Archives that leave the Move Originator out, or put their own title there, are known by their title.
        """
        with self._lock:
            late = time.monotonic() < self._late.get(study_instance_uid, 0.0)
            if not (late or self._moving[study_instance_uid]):
                return None
        ours = self._lines.peer.calling_ae_title == move_originator
        return self._spool if ours or calling_ae_title == self._lines.peer.ae_title else None

    def forget(self, study_instance_uid: str) -> None:
        """The archive does not have the study: neither do we."""
        for path in self._spool.study_files(study_instance_uid):
            self._spool.remove(path)

    def file(self, one: Listed, study_instance_uid: str) -> Path | None:
        """The file of one instance, fetched where it is not here; None when the archive does not send it."""
        for attempt in range(ATTEMPTS):
            if found := self._spool.instance_files(study_instance_uid, one.sop_instance_uid):
                return found[0]
            done = self._retrieved(study_instance_uid, [one])
            if attempt + 1 == ATTEMPTS and not self._spool.instance_files(study_instance_uid, one.sop_instance_uid):
                self._doubt(done)
        return next(iter(self._spool.instance_files(study_instance_uid, one.sop_instance_uid)), None)

    def headers(
        self, study_instance_uid: str, listed: Sequence[Listed]
    ) -> tuple[dict[str, Headers], tuple[Rejection, ...]]:
        """Headers by SOP Instance UID of what the policy wants and the archive gives; what it does not is rejected."""
        self._sweep()
        uids = {one.sop_instance_uid for one in listed}
        held = self._held(study_instance_uid, uids)
        wanted = self._wanted(listed, held)
        missing = [one for one in wanted if one.sop_instance_uid not in held]
        done: Retrieved | None = None
        for _ in range(ATTEMPTS):
            for batch in _batches(missing, Counter(one.series_instance_uid for one in listed)):
                done = self._retrieved(study_instance_uid, batch)
            if done is None:
                break
            before, held = len(missing), self._held(study_instance_uid, uids)
            missing = [one for one in missing if one.sop_instance_uid not in held]
            if len(missing) < before:
                self._proven_at = time.monotonic()
            if not missing:
                break
        if missing and done is not None:
            self._doubt(done)
        return held, tuple(self._rejection(one, done) for one in missing)

    def _sweep(self) -> None:
        """Removes, once, what an earlier process left unfinished; another one may be receiving now."""
        if self._swept:
            return
        self._swept = True
        before = time.time() - UNFINISHED_S
        for part in self._spool.incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_mtime < before:
                    part.unlink()

    def _wanted(self, listed: Sequence[Listed], held: Mapping[str, Headers]) -> list[Listed]:
        if self._policy is RetrievePolicy.NONE or self._retrieve is Retrieve.FIND:
            return []
        if self._policy is RetrievePolicy.ALL:
            return list(listed)
        if self._policy is RetrievePolicy.STRUCTURED_REPORTS_ONLY:
            return [one for one in listed if one.is_report]
        series: dict[str, Listed] = {}
        for one in sorted(
            listed, key=lambda o: (o.sop_instance_uid not in held, o.instance_number, o.sop_instance_uid)
        ):
            series.setdefault(one.series_instance_uid, one)
        return list(series.values())

    def _held(self, study_instance_uid: str, listed: set[str]) -> dict[str, Headers]:
        """What the spool holds of the study and the archive still lists; of two with one UID the newer."""
        found: dict[str, tuple[int, Path, Headers]] = {}
        for path in self._spool.study_files(study_instance_uid):
            try:
                made, headers = path.stat().st_mtime_ns, read_headers(path)
            except FileNotFoundError:
                continue
            except InvalidFile:
                self._spool.remove(path)
                continue
            uid = headers.text("SOPInstanceUID")
            other = found.get(uid)
            if uid not in listed or (other is not None and other[0] >= made):
                self._spool.remove(path)
                continue
            if other is not None:
                self._spool.remove(other[1])
            found[uid] = made, path, headers
        return {uid: headers for uid, (_, _, headers) in found.items()}

    def _retrieved(self, study_instance_uid: str, batch: Sequence[Listed]) -> Retrieved:
        """One request. Raises SourceUnavailable when nothing can come of asking for more."""
        uids = [one.sop_instance_uid for one in batch if one.sop_instance_uid]
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": batch[0].series_instance_uid}
        keys |= {"QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "\\".join(uids)} if len(batch) <= BATCH else {}
        identifier = encoded({"QueryRetrieveLevel": "SERIES"} | keys)
        if self._retrieve is Retrieve.GET:
            done = self._got(study_instance_uid, batch, identifier)
        else:
            done = self._moved(study_instance_uid, identifier)
        if done.status in _NOT_NOW:
            raise self._lines.peer.unavailable(f"C-{self._retrieve.name} ended with status {done.status:04X}")
        return done

    def _doubt(self, done: Retrieved) -> None:
        """Whether it is our receiver that nothing reaches: then nothing is known of the instances. Raises."""
        proven = time.monotonic() - self._proven_at < PROVEN_S
        if self._retrieve is Retrieve.MOVE and (done.status == _UNKNOWN_DESTINATION or not proven):
            raise self._lines.peer.unavailable(
                f"it moves nothing to AE title {self._destination} (status {done.status:04X}): have it entered there "
                "with the host and port of our receiver, and see that the receiver runs"
            )

    def _moved(self, study_instance_uid: str, identifier: bytes) -> Retrieved:
        with self._expected(study_instance_uid), self._lines.opened([STUDY_ROOT_MOVE]) as association:
            return association.move(identifier, self._destination, self._timeout_s)

    def _got(self, study_instance_uid: str, batch: Sequence[Listed], identifier: bytes) -> Retrieved:
        storage = storage_contexts({one.sop_class_uid for one in batch} - {""})
        with self._lines.opened([STUDY_ROOT_GET, *storage]) as association:
            return association.get(identifier, _Keeping(self._spool, study_instance_uid), self._timeout_s)

    @contextlib.contextmanager
    def _expected(self, study_instance_uid: str) -> Iterator[None]:
        with self._lock:
            self._moving[study_instance_uid] += 1
        try:
            yield
        finally:
            with self._lock:
                self._moving[study_instance_uid] -= 1
                self._moving += Counter()
                now = time.monotonic()
                self._late = {uid: at for uid, at in self._late.items() if at > now}
                self._late[study_instance_uid] = now + LATE_S

    def _rejection(self, one: Listed, done: Retrieved | None) -> Rejection:
        evidence: dict[str, str | int] = {"series_instance_uid": one.series_instance_uid, "attempts": ATTEMPTS}
        if done is not None:
            evidence["status"] = f"{done.status:04X}"
            evidence["failed"] = done.failed
            evidence["named_as_failed"] = int(one.sop_instance_uid in done.failed_sop_instance_uids)
        problem = f"the archive lists this instance and did not send it by C-{self._retrieve.name}"
        return Rejection(f"{self._name}/{one.sop_instance_uid}", problem, evidence)


class _Keeping:
    """Objects of a C-GET into the spool: only whole ones, and of the study that was asked for."""

    def __init__(self, spool: Spool, study_instance_uid: str) -> None:
        self._spool, self._study = spool, study_instance_uid

    def part(self) -> Path:
        return self._spool.part()

    def keep(self, arrived: Arrived) -> int:
        try:
            headers = read_headers(arrived.part)
        except (InvalidFile, SourceUnavailable):
            return CANNOT_UNDERSTAND
        uids = headers.text("StudyInstanceUID"), headers.text("SOPInstanceUID")
        if uids != (self._study, arrived.sop_instance_uid):
            return _DATA_SET_DOES_NOT_MATCH
        self._spool.keep(arrived.part, *uids, arrived.digest)
        return SUCCESS


def _batches(missing: Sequence[Listed], sizes: Mapping[str, int]) -> Iterator[list[Listed]]:
    """Requests: a whole series when much of it is missing, else its instances in batches. Never two series at once."""
    by_series: dict[str, list[Listed]] = {}
    for one in missing:
        by_series.setdefault(one.series_instance_uid, []).append(one)
    for series, members in sorted(by_series.items()):
        if len(members) > BATCH and len(members) == sizes[series]:
            yield members
        else:
            for start in range(0, len(members), BATCH):
                yield members[start : start + BATCH]
