"""One association as its acceptor sees it: PDUs in, objects to disk, answers out. Runs in a thread of its own.

One request is outstanding at a time, read into one buffer of fixed size, so a peer that sends without reading fills its
own socket, not our memory. Every wait has an end on the monotonic clock.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import struct
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from bridge.errors import place
from bridge.sources.manifest import Verdict
from bridge.sources.preamble import preamble
from bridge.sources.services import CommandField, Request, Response, Status
from bridge.sources.upper_layer import (
    HEADER,
    IMPLEMENTATION_UID,
    IMPLEMENTATION_VERSION,
    MAXIMUM_COMMAND,
    MAXIMUM_PDU,
    RELEASE_RESPONSE,
    AbortReason,
    Command,
    Context,
    Pdu,
    Proposal,
    ProtocolError,
    Reject,
    abort_pdu,
    agreement,
    command_set,
    data_pdus,
    fragments,
    proposal,
    reject_pdu,
    request_command,
)

log = logging.getLogger("bridge.receiver")

MAXIMUM_DATA_SET = 2_097_152
"""The largest data set of a request that is not a C-STORE."""

MAXIMUM_ITEMS = 20_000
_BUFFER = 2 * (MAXIMUM_PDU + HEADER)
_NO_DATA_SET = 0x0101
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
_PDU_HEADER = struct.Struct(">BxI")

# pydicom judges every value it reads, and quotes the ones it does not like in warnings and in its log.
config.settings.reading_validation_mode = config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\.")
logging.getLogger("pydicom").disabled = True


@dataclass(frozen=True)
class Origin:
    """Where an object comes from. `move_originator` is the AE title whose C-MOVE asked for it, "" when none did."""

    calling_ae_title: str
    called_ae_title: str
    move_originator: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Received:
    """A whole object on disk, fsynced. `digest` is the SHA-256 of its data set, in hex; `size` its bytes."""

    part: Path
    size: int
    digest: str


@dataclass(frozen=True)
class Judgement:
    """What became of an object, and what its sender is told."""

    status: int
    verdict: Verdict
    reason: str = ""
    study_instance_uid: str = ""


class Desk(Protocol):
    """What an association asks of the receiver it belongs to."""

    @property
    def maximum_object_bytes(self) -> int: ...

    @property
    def idle_s(self) -> float: ...

    @property
    def object_s(self) -> float: ...

    def admits(self, asked: Proposal, peer: Peer) -> Reject | None: ...

    def accepts(self, abstract_syntax: str) -> bool: ...

    def opened(self, asked: Proposal, peer: Peer, contexts: int, refused: int) -> Record: ...

    def turned_away(self, asked: Proposal | None, peer: Peer, reason: str) -> None: ...

    def part(self) -> Path | None: ...

    def take(self, origin: Origin, received: Received) -> Judgement: ...

    def serve(self, request: Request) -> Response: ...


class Record(Protocol):
    """The manifest of one association."""

    def add(self, verdict: Verdict, status: int, line: Mapping[str, Any]) -> None: ...

    def end(self, how: str) -> None: ...


@dataclass(frozen=True)
class Peer:
    """The other side of a connection. `certificate` is its DER form, b"" without one; `names` what it certifies."""

    address: str
    certificate: bytes = b""
    names: frozenset[str] = frozenset()


class Ended(Exception):
    """The association is over; the text says how, for the manifest."""


class _Stream:
    """Bytes of a connection in one buffer of fixed size."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._view = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0

    def exactly(self, length: int, deadline: float) -> memoryview:
        """The next bytes; valid until the next call. Raises Ended when they do not come in time."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + length > _BUFFER:
            left = self._end - self._start
            self._view[:left] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, left
        while self._end - self._start < length:
            self._fill(deadline)
        found = self._view[self._start : self._start + length]
        self._start += length
        return found

    def _fill(self, deadline: float) -> None:
        try:
            count = self._connection.recv_into(self._view[self._end :])
        except TimeoutError:
            raise Ended("timed out: the peer was silent") from None
        except OSError:
            raise Ended("the connection was lost") from None
        if count == 0:
            raise Ended("the peer closed the connection without a release")
        if time.monotonic() > deadline:
            raise Ended("timed out: the peer sent too slowly")
        acknowledge_at_once(self._connection)
        self._end += count


class _Incoming:
    """One object on its way to disk; what cannot be written is counted and thrown away."""

    def __init__(self, part: Path | None, prefix: bytes, maximum: int, expires_at: float) -> None:
        self.part, self.size, self.expires_at = part, 0, expires_at
        self._maximum, self._hash, self._file = maximum, hashlib.sha256(), -1
        self.problem = "" if part is not None else "no room: less than minimum_free_bytes are free"
        if part is not None:
            try:
                self._file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                self._put(memoryview(prefix))
            except OSError as error:
                self.discard(f"it cannot be written: {error.strerror}")

    def write(self, fragment: memoryview) -> None:
        self.size += len(fragment)
        if self.size > self._maximum:
            raise ProtocolError("an object is larger than maximum_object_bytes", AbortReason.NOT_SPECIFIED)
        if self._file >= 0:
            self._hash.update(fragment)
            try:
                self._put(fragment)
            except OSError as error:
                self.discard(f"it cannot be written: {error.strerror}")

    def finished(self) -> Received | None:
        """The object, fsynced; None when it could not be written (`problem`)."""
        if self._file < 0 or self.part is None:
            return None
        try:
            os.fsync(self._file)
        except OSError as error:
            self.discard(f"it cannot be written: {error.strerror}")
            return None
        os.close(self._file)
        self._file = -1
        return Received(self.part, self.size, self._hash.hexdigest())

    def discard(self, problem: str) -> None:
        """Leaves nothing on disk."""
        self.problem = problem
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self.part is not None:
            self.part.unlink(missing_ok=True)

    def _put(self, content: memoryview) -> None:
        written = os.write(self._file, content)
        while written < len(content):
            written += os.write(self._file, content[written:])


class Association:
    """Serves one connection whose A-ASSOCIATE-RQ has arrived, to its end."""

    def __init__(
        self, connection: socket.socket, peer: Peer, request: bytes, desk: Desk, at: Callable[[str], None]
    ) -> None:
        self._connection, self._peer, self._request, self._desk, self._at = connection, peer, request, desk, at
        self._active_at = time.monotonic()
        self._busy, self.spoke = True, False
        self._evicted = False
        self._contexts: Mapping[int, Context] = {}
        self._asked: Proposal
        self._record: Record
        self._command = bytearray()
        self._current: tuple[int, Command] | None = None
        self._incoming: _Incoming | None = None
        self._data_set: bytearray | None = None

    @property
    def silent_s(self) -> float:
        """Seconds that the peer has left us waiting for its next PDU; 0 while we work for it."""
        return 0.0 if self._busy else time.monotonic() - self._active_at

    def evict(self) -> None:
        """Ends it from another thread, to make room or to stop."""
        self._evicted = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        with self._connection:
            self._connection.settimeout(self._desk.idle_s)
            answer_at_once(self._connection)
            if not self._negotiated():
                return
            how = "ended by a bug of this program"
            try:
                self._serve()
            except Ended as end:
                how = "ended here to make room or to stop" if self._evicted else str(end)
            except ProtocolError as error:
                how = f"aborted: {error}"
                with contextlib.suppress(OSError):
                    self._connection.sendall(abort_pdu(error.reason))
            finally:
                try:
                    self._cut_off(how)
                finally:
                    self._record.end(how)

    def _negotiated(self) -> bool:
        asked = None
        try:
            asked = self._asked = proposal(self._request)
            refused = self._desk.admits(asked, self._peer)
            if refused is not None:
                self._desk.turned_away(asked, self._peer, refused.name.lower().replace("_", " "))
                self._send(reject_pdu(refused))
                return False
            agreed = agreement(asked, self._desk.accepts)
            self._contexts = agreed.contexts
            self._record = self._desk.opened(asked, self._peer, len(agreed.contexts), agreed.refused)
        except ProtocolError as error:
            self._desk.turned_away(asked, self._peer, str(error))
            with contextlib.suppress(OSError):
                self._connection.sendall(abort_pdu(error.reason))
            return False
        except Ended:
            return False
        try:
            self._send(agreed.pdu)
        except Ended as end:
            self._record.end(str(end))
            return False
        return True

    def _serve(self) -> None:
        stream = _Stream(self._connection)
        while True:
            deadline = time.monotonic() + self._desk.idle_s
            if self._incoming is not None:
                deadline = min(deadline, self._incoming.expires_at)
            self._active_at, self._busy = time.monotonic(), False
            kind, length = _PDU_HEADER.unpack(stream.exactly(HEADER, deadline))
            if length > MAXIMUM_PDU:
                raise ProtocolError("a PDU is longer than the maximum that was announced")
            content = stream.exactly(length, deadline)
            self._busy = self.spoke = True
            if kind == Pdu.DATA:
                for context_id, control, fragment in fragments(content):
                    self._fragment(context_id, control, fragment)
            elif kind == Pdu.RELEASE_RQ:
                self._send(RELEASE_RESPONSE)
                raise Ended("released")
            elif kind == Pdu.ABORT:
                raise Ended("aborted by the peer")
            else:
                known = kind in Pdu.__members__.values()
                raise ProtocolError(
                    "a PDU that cannot come now", AbortReason.UNEXPECTED_PDU if known else AbortReason.UNRECOGNIZED_PDU
                )

    def _fragment(self, context_id: int, control: int, fragment: memoryview) -> None:
        if context_id not in self._contexts:
            raise ProtocolError("a PDV for a presentation context that was not accepted")
        if control & 1:
            if self._current is not None:
                raise ProtocolError("a command within another message", AbortReason.UNEXPECTED_PARAMETER)
            self._command += fragment
            if len(self._command) > MAXIMUM_COMMAND:
                raise ProtocolError("a command set is too large")
            if control & 2:
                found = request_command(bytes(self._command))
                self._command.clear()
                self._begin(context_id, found)
            return
        if self._current is None or self._current[0] != context_id or self._command:
            raise ProtocolError("data that no command announced", AbortReason.UNEXPECTED_PARAMETER)
        if self._incoming is not None:
            self._incoming.write(fragment)
        elif self._data_set is not None:
            self._data_set += fragment
            if len(self._data_set) > MAXIMUM_DATA_SET:
                raise ProtocolError("the data set of a request is too large")
        if control & 2:
            self._finish()

    def _begin(self, context_id: int, request: Command) -> None:
        """A command set is whole: answer it, or wait for its data set."""
        if request.field & 0x8000:
            raise ProtocolError("a response to nothing that was asked", AbortReason.UNEXPECTED_PARAMETER)
        if request.field == CommandField.C_CANCEL:
            return
        if request.field == CommandField.C_STORE:
            self._begin_object(context_id, request)
        elif request.field == CommandField.C_ECHO and not request.has_data_set:
            self._respond(context_id, request, Response())
        elif request.has_data_set:
            self._current, self._data_set = (context_id, request), bytearray()
        else:
            self._respond(context_id, request, self._served(context_id, request, b""))

    def _begin_object(self, context_id: int, request: Command) -> None:
        if not request.has_data_set:
            raise ProtocolError("a C-STORE without a data set")
        if not (request.text(0x0002) and request.text(0x1000)):
            raise ProtocolError("a C-STORE without Affected SOP Class UID or Affected SOP Instance UID")
        self._current = context_id, request
        prefix = file_prefix(
            request.text(0x0002),
            request.text(0x1000),
            self._contexts[context_id].transfer_syntax,
            self._asked.calling_ae_title,
        )
        expires_at = time.monotonic() + self._desk.object_s
        self._incoming = _Incoming(self._desk.part(), prefix, self._desk.maximum_object_bytes, expires_at)

    def _finish(self) -> None:
        """A data set is whole."""
        if self._current is None:
            return
        context_id, request = self._current
        if self._incoming is None:
            content, self._current, self._data_set = bytes(self._data_set or b""), None, None
            self._respond(context_id, request, self._served(context_id, request, content))
            return
        incoming = self._incoming
        digest, judged = self._judged(request, incoming)
        self._current = self._incoming = None
        noted = self._noted(context_id, request, incoming.size, digest, judged)
        status = judged.status if noted else Status.OUT_OF_RESOURCES
        self._respond(context_id, request, Response(status, request.text(0x1000)))

    def _judged(self, request: Command, incoming: _Incoming) -> tuple[str, Judgement]:
        """The digest of a whole object, "" when there is none, and what became of it. A bug met by it refuses it."""
        try:
            received = incoming.finished()
            self._at("fsynced")
            if received is None:
                return "", Judgement(Status.OUT_OF_RESOURCES, Verdict.REFUSED, incoming.problem)
            origin = Origin(
                self._asked.calling_ae_title,
                self._asked.called_ae_title,
                request.text(0x1030),
                request.text(0x0002),
                request.text(0x1000),
            )
            return received.digest, self._desk.take(origin, received)
        except Exception as error:  # noqa: BLE001  a bug met by one object must not stop the others
            problem = f"unexpected {type(error).__name__} at {place(error)}: a bug of this program"
            log.error("an object is refused: %s: please report this", problem)
            incoming.discard(problem)
            return "", Judgement(Status.PROCESSING_FAILURE, Verdict.REFUSED, problem)

    def _noted(self, context_id: int, request: Command, size: int, digest: str, judged: Judgement) -> bool:
        """Whether the manifest has the object. Without its line nobody is told success; sent again, it is known."""
        line = {
            "sop_class_uid": request.text(0x0002)[:64],
            "sop_instance_uid": request.text(0x1000)[:64],
            "study_instance_uid": judged.study_instance_uid,
            "transfer_syntax_uid": self._contexts[context_id].transfer_syntax,
            "bytes": size,
            "sha256": digest,
        }
        try:
            self._record.add(judged.verdict, judged.status, line | ({"reason": judged.reason} if judged.reason else {}))
        except OSError as error:
            log.error("an object cannot be recorded in the manifest: %s", error.strerror)
            return False
        return True

    def _cut_off(self, how: str) -> None:
        """An object that was not judged when the association ended: nothing of it stays, but its line does."""
        if self._current is None or self._data_set is not None:
            return
        size = 0
        if self._incoming is not None:
            size = self._incoming.size
            self._incoming.discard("incomplete")
        judged = Judgement(Status.PROCESSING_FAILURE, Verdict.REFUSED, f"incomplete: {how}")
        self._noted(*self._current, size, "", judged)

    def _served(self, context_id: int, request: Command, content: bytes) -> Response:
        try:
            data_set = _decoded(content, self._contexts[context_id].transfer_syntax) if content else None
        except ValueError as error:
            return Response(Status.PROCESSING_FAILURE, comment=str(error))
        return self._desk.serve(
            Request(
                command_field=request.field,
                sop_class_uid=request.text(0x0002) or request.text(0x0003),
                sop_instance_uid=request.text(0x1000) or request.text(0x1001),
                calling_ae_title=self._asked.calling_ae_title,
                called_ae_title=self._asked.called_ae_title,
                peer_address=self._peer.address,
                action_type_id=request.number(0x1008),
                event_type_id=request.number(0x1002),
                data_set=data_set,
            )
        )

    def _respond(self, context_id: int, request: Command, response: Response) -> None:
        context = self._contexts[context_id]
        elements: dict[int, int | str] = {
            0x0002: request.text(0x0002) or request.text(0x0003) or context.abstract_syntax,
            0x0100: request.field | 0x8000,
            0x0120: request.number(0x0110) or 0,
            0x0800: _NO_DATA_SET if response.data_set is None else 1,
            0x0900: response.status,
        }
        instance = response.sop_instance_uid or request.text(0x1000) or request.text(0x1001)
        if instance:
            elements[0x1000] = instance
        for element in (0x1002, 0x1008):
            if (number := request.number(element)) is not None:
                elements[element] = number
        if response.comment:
            elements[0x0902] = response.comment[:64]
        if response.error_id is not None:
            elements[0x0903] = response.error_id
        maximum = self._asked.maximum_pdu
        answer = data_pdus(context_id, command_set(elements), True, maximum)
        if response.data_set is not None:
            answer += data_pdus(context_id, _encoded(response.data_set, context.transfer_syntax), False, maximum)
        self._send(answer)

    def _send(self, content: bytes) -> None:
        try:
            self._connection.sendall(content)
        except TimeoutError:
            raise Ended("timed out: the peer does not read") from None
        except OSError:
            raise Ended("the connection was lost") from None


def answer_at_once(connection: socket.socket) -> None:
    """Small answers wait 40 ms for the peer's acknowledgement unless Nagle's algorithm is off; for SCU and SCP."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def acknowledge_at_once(connection: socket.socket) -> None:
    """A peer with Nagle's algorithm on waits 40 ms for our acknowledgement; Linux forgets this after each read."""
    if _QUICKACK is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def file_prefix(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, ae_title: str) -> bytes:
    """What stands before the data set in a file: the preamble, DICM and the file meta information (PS3.10 7.1)."""
    elements = [
        (0x0002, b"UI", sop_class_uid),
        (0x0003, b"UI", sop_instance_uid),
        (0x0010, b"UI", transfer_syntax_uid),
        (0x0012, b"UI", str(IMPLEMENTATION_UID)),
        (0x0013, b"SH", IMPLEMENTATION_VERSION),
        (0x0016, b"AE", ae_title),
    ]
    body = struct.pack("<HH2sHI2x", 2, 1, b"OB", 0, 2)[:-2] + b"\0\1"
    for element, vr, text in elements:
        raw = text.encode("ascii", "replace")[:64]
        raw += (b"\0" if vr == b"UI" else b" ") * (len(raw) % 2)
        body += struct.pack("<HH2sH", 2, element, vr, len(raw)) + raw
    head = bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body)) + body
    return preamble(head) + head[128:]


def _decoded(content: bytes, transfer_syntax: str) -> Dataset:
    """The data set of a request. Raises ValueError, with a comment for the sender, when it cannot be read."""
    if content.count(b"\xfe\xff\x00\xe0") > MAXIMUM_ITEMS:
        raise ValueError("the data set has too many items")
    try:
        file = BytesIO(file_prefix("1.2", "1.2", transfer_syntax, "") + content)
        found = dcmread(file, force=True)
        found.decode()
    except Exception:  # noqa: BLE001  the decoder raises whatever it stumbles over, RecursionError among it
        raise ValueError("the data set cannot be decoded") from None
    return found


def _encoded(data_set: Dataset, transfer_syntax: str) -> bytes:
    syntax = UID(transfer_syntax)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    write_dataset(buffer, data_set)
    return bytes(buffer.getvalue())
