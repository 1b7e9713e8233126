"""What we ask of other DICOM applications: C-ECHO, C-FIND, C-MOVE, C-GET, C-STORE, N-EVENT-REPORT (PS3.7, PS3.4)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from bridge.errors import InvalidFile, SourceUnavailable
from bridge.sources.object_files import SUCCESS, Arrived, Arriving, Objects, stored_object
from bridge.sources.peer import Peer
from bridge.sources.requestor import Connection, Message, Proposed, Writer
from bridge.sources.upper_layer import (
    MAXIMUM_CONTEXTS,
    Command,
    ProtocolError,
    command_set,
)

__all__ = ["Arrived", "Association", "Found", "Objects", "Peer", "Proposed", "Retrieved", "Sender", "Sent", "report"]

VERIFICATION = Proposed("1.2.840.10008.1.1")
STUDY_ROOT_FIND = Proposed("1.2.840.10008.5.1.4.1.2.2.1")
STUDY_ROOT_MOVE = Proposed("1.2.840.10008.5.1.4.1.2.2.2")
STUDY_ROOT_GET = Proposed("1.2.840.10008.5.1.4.1.2.2.3")

CANCELLED, LIMIT_REACHED = 0xFE00, 0xB001
PENDING, PENDING_WITHOUT_OPTIONAL_KEYS = 0xFF00, 0xFF01
DUPLICATE = 0x0111
MAXIMUM_MATCHES = 50_000
"""Matches taken of one query; a query with more is cancelled and counts as cut short by a limit."""

MAXIMUM_BYTES = 268_435_456
MAXIMUM_FAILED = 100_000
_NO_DATA_SET, _DATA_SET = 0x0101, 0x0001


class _Field(IntEnum):
    """Command fields of requests (PS3.7 E.1); a response has 8000 added."""

    C_STORE = 0x0001
    C_GET = 0x0010
    C_FIND = 0x0020
    C_MOVE = 0x0021
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    C_CANCEL = 0x0FFF


@dataclass(frozen=True)
class Found:
    """The answer to one C-FIND.

    Result  `matches` identifiers, encoded implicit VR little endian; `status` the final one; `without_optional_keys`
            how many matches came with FF01: keys the archive does not support are then missing
    """

    matches: tuple[bytes, ...]
    status: int
    without_optional_keys: int = 0


@dataclass(frozen=True)
class Retrieved:
    """How a C-MOVE or C-GET ended: its final status and the last counts of its sub-operations (PS3.4 C.4.2, C.4.3)."""

    status: int
    completed: int = 0
    failed: int = 0
    warnings: int = 0
    failed_sop_instance_uids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sent:
    """What became of one file. `status` is the peer's, or None with the `problem` that kept it from being sent."""

    path: Path
    status: int | None
    problem: str = ""

    @property
    def stored(self) -> bool:
        """The peer has it: success, a warning (coerced or discarded elements), or it had it before."""
        return self.status is not None and (self.status in (SUCCESS, DUPLICATE) or self.status >> 12 == 0xB)


class Association:
    """An association for any number of exchanges, one after another, used by one thread at a time.

    Every failure of the peer is SourceUnavailable; the association is over then.
    """

    def __init__(self, peer: Peer, proposed: Sequence[Proposed]) -> None:
        self._peer = peer
        self._connection = Connection(peer, proposed)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    @property
    def reusable(self) -> bool:
        """It can take another exchange now."""
        return self._connection.reusable

    @property
    def accepted(self) -> frozenset[str]:
        """The abstract syntaxes the peer accepted."""
        return frozenset(c.abstract_syntax for c in self._connection.contexts.values())

    def release(self) -> None:
        self._connection.release()

    def abort(self) -> None:
        self._connection.abort()

    def echo(self) -> None:
        """C-ECHO. Raises SourceUnavailable unless it succeeds."""
        context = self._connection.context_for(VERIFICATION.abstract_syntax)
        self._send(context, _Field.C_ECHO, {0x0002: VERIFICATION.abstract_syntax})
        _, status = self._answer(_Field.C_ECHO)
        if status != SUCCESS:
            raise self._peer.unavailable(f"C-ECHO ended with status {status:04X}")

    def find(self, identifier: bytes, maximum: int = MAXIMUM_MATCHES) -> Found:
        """C-FIND in the Study Root. A failure status is a result like any other: it is the caller's to judge."""
        context = self._connection.context_for(STUDY_ROOT_FIND.abstract_syntax)
        number = self._send(context, _Field.C_FIND, {0x0002: STUDY_ROOT_FIND.abstract_syntax, 0x0700: 0}, identifier)
        matches: list[bytes] = []
        answers = incomplete = size = 0
        limited = False
        while True:
            answer, status = self._answer(_Field.C_FIND)
            if status not in (PENDING, PENDING_WITHOUT_OPTIONAL_KEYS):
                return Found(tuple(matches), LIMIT_REACHED if limited else status, incomplete)
            answers += 1
            if not limited:
                incomplete += status == PENDING_WITHOUT_OPTIONAL_KEYS
                matches.append(answer.data)
                size += len(answer.data)
                limited = answers > maximum or size > MAXIMUM_BYTES
                if limited:
                    self._cancel(context, number)
            elif answers > maximum + MAXIMUM_MATCHES:
                self.abort()
                return Found(tuple(matches), LIMIT_REACHED, incomplete)

    def move(self, identifier: bytes, destination: str, timeout_s: float) -> Retrieved:
        """C-MOVE to an AE title. `timeout_s` is the longest silence: many archives say nothing until all is sent."""
        context = self._connection.context_for(STUDY_ROOT_MOVE.abstract_syntax)
        elements: dict[int, int | str] = {0x0002: STUDY_ROOT_MOVE.abstract_syntax, 0x0700: 0}
        elements[0x0600] = destination + " " * (len(destination) % 2)
        self._send(context, _Field.C_MOVE, elements, identifier)
        while True:
            answer, status = self._answer(_Field.C_MOVE, timeout_s)
            if status != PENDING:
                return _retrieved(answer, status)

    def get(self, identifier: bytes, objects: Objects, timeout_s: float) -> Retrieved:
        """C-GET; every object goes to `objects` as it comes."""
        context = self._connection.context_for(STUDY_ROOT_GET.abstract_syntax)
        self._send(context, _Field.C_GET, {0x0002: STUDY_ROOT_GET.abstract_syntax, 0x0700: 0}, identifier)
        arriving: list[Arriving] = []

        def writer(context_id: int, command: Command) -> Writer | None:
            if command.field != _Field.C_STORE:
                return None
            if context_id not in self._connection.contexts:
                raise ProtocolError("an object on a presentation context that was not accepted")
            syntax = self._connection.contexts[context_id].transfer_syntax
            arriving.append(Arriving(objects, command.text(0x0002), command.text(0x1000), syntax, self._peer.ae_title))
            return arriving[0]

        try:
            while True:
                message = self._connection.receive(timeout_s, writer)
                if message.command.field == _Field.C_STORE and arriving:
                    self._stored(message, arriving.pop().finished())
                elif (status := self._checked(message, _Field.C_GET)) != PENDING:
                    return _retrieved(message, status)
        finally:
            for unfinished in arriving:
                unfinished.discard()

    def store(self, file: Path) -> Sent:
        """C-STORE of a Part 10 file, its data set as it is. Raises SourceUnavailable when the association fails."""
        try:
            held = stored_object(file)
        except (InvalidFile, OSError) as error:
            return Sent(file, None, str(error) if isinstance(error, InvalidFile) else "the file cannot be read")
        try:
            context = self._connection.context_for(held.sop_class_uid, held.transfer_syntax_uid)
        except SourceUnavailable:
            return Sent(file, None, f"the peer does not take {UID(held.sop_class_uid).name} in its transfer syntax")
        self._number = self._number % 65_535 + 1
        elements: dict[int, int | str] = {0x0002: held.sop_class_uid, 0x1000: held.sop_instance_uid, 0x0700: 0}
        command = command_set(elements | {0x0100: _Field.C_STORE, 0x0110: self._number, 0x0800: _DATA_SET})
        with file.open("rb") as content:
            content.seek(held.offset)
            self._connection.send_object(context, command, content.read, held.size)
        return Sent(file, self._answer(_Field.C_STORE)[1])

    def n_event_report(self, sop_class_uid: str, sop_instance_uid: str, event_type_id: int, data_set: Dataset) -> int:
        """The status the peer answered an event with (PS3.7 10.1.1)."""
        context = self._connection.context_for(sop_class_uid)
        elements: dict[int, int | str] = {0x0002: sop_class_uid, 0x1000: sop_instance_uid, 0x1002: event_type_id}
        self._send(context, _Field.N_EVENT_REPORT, elements, _encoded(data_set))
        return self._answer(_Field.N_EVENT_REPORT)[1]

    def _send(self, context: int, field: _Field, elements: dict[int, int | str], data: bytes | None = None) -> int:
        self._number = self._number % 65_535 + 1
        kind = _NO_DATA_SET if data is None else _DATA_SET
        command = command_set(elements | {0x0100: field, 0x0110: self._number, 0x0800: kind})
        self._connection.send(context, command, data)
        return self._number

    def _cancel(self, context: int, number: int) -> None:
        elements: dict[int, int | str] = {0x0100: _Field.C_CANCEL, 0x0120: number, 0x0800: _NO_DATA_SET}
        self._connection.send(context, command_set(elements))

    def _answer(self, field: _Field, timeout_s: float | None = None) -> tuple[Message, int]:
        message = self._connection.receive(self._peer.timeout_s if timeout_s is None else timeout_s)
        return message, self._checked(message, field)

    def _checked(self, message: Message, field: _Field) -> int:
        """The status of an answer to what was asked last."""
        command, status = message.command, message.command.number(0x0900)
        if command.field != field | 0x8000 or command.number(0x0120) != self._number or status is None:
            self.abort()
            raise self._peer.unavailable("it does not speak DICOM as it must: an answer to nothing that was asked")
        return status

    def _stored(self, message: Message, status: int) -> None:
        elements: dict[int, int | str] = {
            0x0002: message.command.text(0x0002),
            0x0100: _Field.C_STORE | 0x8000,
            0x0120: message.command.number(0x0110) or 0,
            0x0800: _NO_DATA_SET,
            0x0900: status,
            0x1000: message.command.text(0x1000),
        }
        self._connection.send(message.context_id, command_set(elements))


class Sender:
    """Forwards files to one peer by C-STORE."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def send(self, paths: Sequence[Path]) -> list[Sent]:
        """What became of each file, in order. Raises SourceUnavailable when the peer cannot take any now; what was
        sent before is then sent again, which the peer must bear."""
        sent = dict(self._unreadable(paths))
        readable = [path for path in paths if path not in sent]
        for contexts, batch in _batches(readable):
            with Association(self._peer, contexts) as association:
                sent |= {path: association.store(path) for path in batch}
        return [sent[path] for path in paths]

    def _unreadable(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Sent]]:
        for path in paths:
            try:
                stored_object(path)
            except InvalidFile as error:
                yield path, Sent(path, None, str(error))
            except OSError as error:
                yield path, Sent(path, None, f"the file cannot be read: {error.strerror}")


def _batches(paths: Sequence[Path]) -> Iterator[tuple[list[Proposed], list[Path]]]:
    """Files by associations: each with no more presentation contexts than one can have."""
    contexts: dict[tuple[str, str], Proposed] = {}
    batch: list[Path] = []
    for path in paths:
        held = stored_object(path)
        key = held.sop_class_uid, held.transfer_syntax_uid
        if key not in contexts and len(contexts) == MAXIMUM_CONTEXTS:
            yield list(contexts.values()), batch
            contexts, batch = {}, []
        contexts[key] = Proposed(key[0], (key[1],))
        batch.append(path)
    if batch:
        yield list(contexts.values()), batch


def report(peer: Peer, sop_class_uid: str, sop_instance_uid: str, event_type_id: int, data_set: Dataset) -> int:
    """N-EVENT-REPORT on an association of its own, on which we are the SCP (PS3.4 J.3.3). The peer's status.

    Raises  SourceUnavailable   the peer cannot be reached or does not take it now
    """
    with Association(peer, [Proposed(sop_class_uid, as_scp=True)]) as association:
        return association.n_event_report(sop_class_uid, sop_instance_uid, event_type_id, data_set)


def _retrieved(answer: Message, status: int) -> Retrieved:
    command = answer.command
    return Retrieved(
        status,
        completed=command.number(0x1021) or 0,
        failed=command.number(0x1022) or 0,
        warnings=command.number(0x1023) or 0,
        failed_sop_instance_uids=_failed_uids(answer.data),
    )


def _failed_uids(data: bytes) -> tuple[str, ...]:
    """Failed SOP Instance UID List (0008,0058) of the final answer."""
    position = 0
    while position + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, position)
        if (group, element) == (0x0008, 0x0058):
            uids = data[position + 8 : position + 8 + length].decode("ascii", "replace").split("\\")
            return tuple(uid.strip(" \0") for uid in uids[:MAXIMUM_FAILED] if uid.strip(" \0"))
        position += 8 + length
    return ()


def _encoded(data_set: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_dataset(buffer, data_set)
    return bytes(buffer.getvalue())
