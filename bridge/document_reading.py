"""Brings what is kept of a study's documents to what its archives hold: a step of the pipeline beside the headers.

It looks at snapshots and not at changes, so that what was missed, what failed, and what an older version of this
program did not read comes at the next look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from bridge.documents.objects import MOST_BYTES, is_document, kept_part
from bridge.errors import InvalidDicomValue, InvalidFile, ReadingEnded, Unavailable
from bridge.model import InstanceName, KeptDocument, Rejection
from bridge.ports import GivesObjects, ImagingSource
from bridge.translate.headers import Headers, columns
from bridge.translate.uids import checked_uid

MOST_DOCUMENTS = 500
"""Documents of one study that are read of one source."""

MOST_ENDED = 3
"""So many of them may take more than reading one may, at one look."""

Keep = Callable[[bytes, InstanceName], bytes]
"""What is kept of an object: `kept_part`, or what has it done in another process."""

_Missing = tuple[InstanceName, str]


class DocumentsState(Protocol):
    """What of the state this step reaches."""

    def documents(self, study_instance_uid: str) -> tuple[KeptDocument, ...]: ...

    def commit_documents(
        self, source: str, study_instance_uid: str, read: Sequence[KeptDocument], gone: Sequence[str], now: float
    ) -> None: ...


@dataclass(frozen=True)
class Brought:
    """The documents of a study as they are kept now; those that cannot be read; what a source could not answer."""

    documents: tuple[KeptDocument, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    failure: Unavailable | None = None


def bring(
    state: DocumentsState,
    sources: Mapping[str, ImagingSource],
    study_instance_uid: str,
    snapshots: Mapping[str, Sequence[Headers]],
    now: float,
    keep: Keep = kept_part,
) -> Brought:
    """Reads the documents that the snapshots have and the state has not, and forgets those they have no more.

    One that cannot be read is rejected, and tried again at the next look; a source that does not answer holds up
    nothing but its own documents. `keep` says what is kept of an object.
    """
    listed = {source: _listed(study_instance_uid, held) for source, held in snapshots.items()}
    kept = state.documents(study_instance_uid)
    if not kept and not any(listed.values()):
        return Brought()
    rejected: list[Rejection] = []
    failure: Unavailable | None = None
    changed = False
    for source in sorted(listed.keys() | {one.source for one in kept}):
        names = listed.get(source, {})
        mine = {one.name.sop_instance_uid: one for one in kept if one.source == source and one.content is not None}
        gone = sorted(mine.keys() - names.keys())
        missing = [(n, d) for uid, (n, d) in sorted(names.items()) if uid not in mine or mine[uid].digest != d]
        read: list[KeptDocument] = []
        try:
            if len(names) > MOST_DOCUMENTS:
                rejected.append(Rejection(f"{source}/documents", _TOO_MANY, {"documents": len(names)}))
            room = max(0, MOST_DOCUMENTS - len(mine) + len(gone))
            for one in _read(sources.get(source), source, _in_turn(missing[:room], now), rejected, keep):
                read.append(one)
        except Unavailable as error:
            failure = error
        if read or gone:
            state.commit_documents(source, study_instance_uid, read, gone, now)
            changed = True
    return Brought(state.documents(study_instance_uid) if changed else kept, tuple(rejected), failure)


def _listed(study_instance_uid: str, held: Sequence[Headers]) -> dict[str, tuple[InstanceName, str]]:
    """SOP Instance UID → name and digest of the headers, of the documents among the instances."""
    found: dict[str, tuple[InstanceName, str]] = {}
    if not any(is_document(str(value)) for values in set(columns(held, ["SOPClassUID"])[0]) for value in values):
        return found
    for headers in held:
        if not is_document(sop_class := headers.text("SOPClassUID")):
            continue
        series, instance = headers.text("SeriesInstanceUID"), headers.text("SOPInstanceUID")
        try:
            for uid, keyword in ((series, "SeriesInstanceUID"), (instance, "SOPInstanceUID")):
                checked_uid(uid, keyword)
        except InvalidDicomValue:
            continue  # the translation tells what is wrong with it
        digest = hashlib.sha256(orjson.dumps(headers.as_json())).hexdigest()
        found[instance] = InstanceName(study_instance_uid, series, instance, sop_class), digest
    return found


def _in_turn(missing: Sequence[_Missing], now: float) -> Sequence[_Missing]:
    """The same, begun elsewhere at each look: where not all can be read, it is not always the first that are."""
    first = int(now) % max(1, len(missing))
    return [*missing[first:], *missing[:first]]


def _read(
    source: ImagingSource | None, source_name: str, missing: Sequence[_Missing], rejected: list[Rejection], keep: Keep
) -> Iterator[KeptDocument]:
    """Those that can be read. After some whose reading had to be ended the rest waits for the next look: a study of
    many such must not hold up all others."""
    if not isinstance(source, GivesObjects) or not source.gives_objects:
        return
    ended = 0
    for name, digest in missing:
        try:
            if ended >= MOST_ENDED:
                raise InvalidFile(_LEFT)
            content = source.instance(name, MOST_BYTES)
            if content is not None:
                yield KeptDocument(source_name, name, digest, keep(content, name))
        except InvalidFile as error:
            ended += isinstance(error, ReadingEnded)
            evidence = {"sop_instance_uid": name.sop_instance_uid, "series_instance_uid": name.series_instance_uid}
            key = f"{source_name}/{name.sop_instance_uid}/document"
            rejected.append(Rejection(key, f"the document cannot be read: {error}", evidence))


_LEFT = f"the reading of {MOST_ENDED} others of the study had to be ended: it is read at another look"
_TOO_MANY = f"the study has more documents than are read of one: the first {MOST_DOCUMENTS} by UID are"
