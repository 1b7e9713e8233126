"""The DICOM upper layer of a requestor: one connection, negotiated, over which messages go out and come in.

One thread, blocking, every wait with an end on the monotonic clock. pynetdicom's codecs encode and decode the
association PDUs; its own requestor is not used: two threads hand each answer over there, which costs milliseconds and,
on fast sockets, answers (PS3.8 9.3, PS3.7 6.3).
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from bridge.errors import SourceUnavailable
from bridge.sources.association import acknowledge_at_once
from bridge.sources.peer import Peer, connected, reason_of, refusal, who_aborted
from bridge.sources.upper_layer import (
    APPLICATION_CONTEXT,
    HEADER,
    IMPLEMENTATION_UID,
    IMPLEMENTATION_VERSION,
    MAXIMUM_COMMAND,
    MAXIMUM_CONTEXTS,
    MAXIMUM_PDU,
    Command,
    Context,
    Pdu,
    ProtocolError,
    command,
    data_pdus,
    fragments,
)

MAXIMUM_DATA_SET = 2_097_152
"""The largest data set of an answer: one match of a query, one list of failures. Objects are not kept in memory."""

MAXIMUM_ANSWER = 65_536
_BUFFER = 2 * (MAXIMUM_PDU + HEADER)
_HEADER = struct.Struct(">BxI")
_PDV = struct.Struct(">BxIIBB")
_RELEASE_RQ = struct.pack(">BxI4x", Pdu.RELEASE_RQ, 4)
_RELEASE_RP = struct.pack(">BxI4x", Pdu.RELEASE_RP, 4)
_ABORT = struct.pack(">BxI4x", Pdu.ABORT, 4)
_RELEASE_S = 5.0


@dataclass(frozen=True)
class Proposed:
    """A presentation context to ask for. `as_scp`: on it the peer asks and we answer, as for the objects of a C-GET."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = ("1.2.840.10008.1.2",)
    as_scp: bool = False


@dataclass(frozen=True)
class Message:
    """A command set with its data set; that of an object went to its `Writer`."""

    context_id: int
    command: Command
    data: bytes


class Writer(Protocol):
    """Takes the data set of an object, piece by piece."""

    def write(self, fragment: memoryview) -> None: ...


class Connection:
    """An established association. Raises SourceUnavailable, naming what to check, when it cannot be."""

    def __init__(self, peer: Peer, proposed: Sequence[Proposed]) -> None:
        if not 0 < len(proposed) <= MAXIMUM_CONTEXTS:
            raise ValueError("1 to 128 presentation contexts")
        self._peer = peer
        self._socket = connected(peer)
        self._stream = _Stream(self._socket, peer)
        self._last: tuple[bytes, Command] = (b"", Command({}))
        try:
            self._send(_request(peer, proposed))
            self.contexts, self._maximum_pdu = self._agreed(proposed)
        except BaseException:
            self.abort()
            raise

    @property
    def reusable(self) -> bool:
        """Nothing came in while nothing was asked: no release, no abort, no end of the connection."""
        if self._socket.fileno() < 0 or self._stream.left:
            return False
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return not waiting.poll(0)

    def context_for(self, abstract_syntax: str, transfer_syntax: str = "") -> int:
        """The id of an accepted context. Raises SourceUnavailable when the peer took none."""
        for context_id, context in self.contexts.items():
            if context.abstract_syntax == abstract_syntax and transfer_syntax in ("", context.transfer_syntax):
                return context_id
        raise self._peer.unavailable(f"it does not offer {UID(abstract_syntax).name} to {self._peer.calling_ae_title}")

    def send(self, context_id: int, command: bytes, data: bytes | None = None) -> None:
        """One message."""
        content = data_pdus(context_id, command, True, self._maximum_pdu)
        if data is not None:
            content += data_pdus(context_id, data, False, self._maximum_pdu)
        self._send(content)

    def send_object(self, context_id: int, command: bytes, read: Callable[[int], bytes], size: int) -> None:
        """A message whose data set of so many bytes is read piece by piece."""
        self.send(context_id, command)
        piece = min(self._maximum_pdu or MAXIMUM_PDU, MAXIMUM_PDU) - HEADER
        left = size
        while left > 0:
            try:
                content = read(min(piece, left))
            except OSError:
                content = b""
            if not content:
                self.abort()
                raise self._peer.unavailable("a file ended while it was sent")
            left -= len(content)
            self._send(_PDV.pack(Pdu.DATA, len(content) + 6, len(content) + 2, context_id, 0 if left else 2) + content)

    def receive(self, timeout_s: float, writer: Callable[[int, Command], Writer | None] | None = None) -> Message:
        """The next message. `writer` is asked, when a command announces an object, where its data set goes.

        Raises SourceUnavailable when none comes in time, and when the association ends instead.
        """
        try:
            return self._message(timeout_s, writer)
        except ProtocolError as error:
            self.abort()
            raise self._peer.unavailable(f"it does not speak DICOM as it must: {error}") from None
        except BaseException:
            self.abort()
            raise

    def release(self) -> None:
        """Ends the association in order; a peer that does not answer is left."""
        with contextlib.suppress(SourceUnavailable, ProtocolError):
            self._send(_RELEASE_RQ)
            deadline = time.monotonic() + _RELEASE_S
            while self._stream.pdu(deadline, MAXIMUM_PDU)[0] == Pdu.DATA:
                pass
        self._close()

    def abort(self) -> None:
        """Ends the association at once."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(_ABORT)
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def _message(self, timeout_s: float, writer: Callable[[int, Command], Writer | None] | None) -> Message:
        command_bytes, data = bytearray(), bytearray()
        command: Command | None = None
        target: Writer | None = None
        current = -1
        while True:
            for context_id, control, fragment in fragments(self._data_pdu(timeout_s)):
                if current not in (-1, context_id) or bool(control & 1) != (command is None):
                    raise ProtocolError("parts of two messages are mixed")
                current = context_id
                if command is None:
                    command_bytes += fragment
                    if len(command_bytes) > MAXIMUM_COMMAND:
                        raise ProtocolError("a command set is too large")
                    if not control & 2:
                        continue
                    command = self._command(bytes(command_bytes))
                    if not command.has_data_set:
                        return Message(context_id, command, b"")
                    target = writer(context_id, command) if writer else None
                    continue
                if target is not None:
                    target.write(fragment)
                else:
                    data += fragment
                    if len(data) > MAXIMUM_DATA_SET:
                        raise ProtocolError(f"a data set is larger than {MAXIMUM_DATA_SET} bytes")
                if control & 2:
                    return Message(context_id, command, bytes(data))

    def _data_pdu(self, timeout_s: float) -> memoryview:
        kind, content = self._stream.pdu(time.monotonic() + timeout_s, MAXIMUM_PDU)
        if kind == Pdu.DATA:
            return content
        if kind == Pdu.RELEASE_RQ:
            self._send(_RELEASE_RP)
            raise self._peer.unavailable("it released the association before it had answered")
        if kind == Pdu.ABORT:
            raise self._peer.unavailable(f"it aborted the association ({who_aborted(bytes(content))})")
        raise ProtocolError("a PDU that cannot come now")

    def _command(self, content: bytes) -> Command:
        """The command set; answers to one query are alike, so the last one is remembered."""
        if content != self._last[0]:
            self._last = content, command(content)
        return self._last[1]

    def _agreed(self, proposed: Sequence[Proposed]) -> tuple[Mapping[int, Context], int]:
        kind, view = self._stream.pdu(time.monotonic() + self._peer.timeout_s, MAXIMUM_ANSWER)
        content = bytes(view)
        if kind == Pdu.ASSOCIATE_RJ:
            raise self._peer.unavailable(refusal(content, self._peer))
        if kind == Pdu.ABORT:
            raise self._peer.unavailable(f"it aborted the association at once ({who_aborted(content)})")
        if kind != Pdu.ASSOCIATE_AC:
            raise self._peer.unavailable("it does not speak DICOM: check host and port")
        try:
            pdu = A_ASSOCIATE_AC()
            pdu.decode(_HEADER.pack(kind, len(content)) + content)
            answer = pdu.to_primitive()
            contexts = {
                c.context_id: Context(proposed[(c.context_id - 1) // 2].abstract_syntax, str(c.transfer_syntax[0]))
                for c in answer.presentation_context_definition_results_list
                if c.result == 0 and c.context_id is not None
            }
            maximum = int(answer.maximum_length_received or 0)
        except Exception:  # noqa: BLE001  the decoder raises whatever it stumbles over
            raise self._peer.unavailable("its answer to the association request cannot be decoded") from None
        if not contexts:
            raise self._peer.unavailable(
                "it offers nothing of what was asked for: is it allowed to our AE title there?"
            )
        return contexts, maximum if maximum == 0 or maximum > 64 else 64

    def _send(self, content: bytes) -> None:
        try:
            self._socket.settimeout(self._peer.timeout_s)
            self._socket.sendall(content)
        except TimeoutError:
            self._close()
            raise self._peer.unavailable("it does not read what it is sent") from None
        except OSError as error:
            self._close()
            raise self._peer.unavailable(f"the connection was lost ({reason_of(error)})") from None


class _Stream:
    """PDUs of a connection, read into one buffer of fixed size."""

    def __init__(self, connection: socket.socket, peer: Peer) -> None:
        self._socket, self._peer = connection, peer
        self._view = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0

    @property
    def left(self) -> int:
        return self._end - self._start

    def pdu(self, deadline: float, maximum: int) -> tuple[int, memoryview]:
        """Type and content of the next PDU; valid until the next call."""
        kind, length = _HEADER.unpack(self._exactly(HEADER, deadline))
        if length > maximum:
            raise self._peer.unavailable("it sent a PDU longer than it may: is it a DICOM server? Check host and port")
        return kind, self._exactly(length, deadline)

    def _exactly(self, length: int, deadline: float) -> memoryview:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + length > _BUFFER:
            left = self.left
            self._view[:left] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, left
        while self.left < length:
            self._fill(deadline)
        found = self._view[self._start : self._start + length]
        self._start += length
        return found

    def _fill(self, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError
            self._socket.settimeout(left_s)
            count = self._socket.recv_into(self._view[self._end :])
        except TimeoutError:
            raise self._peer.unavailable("it did not answer in time") from None
        except OSError as error:
            raise self._peer.unavailable(f"the connection was lost ({reason_of(error)})") from None
        if count == 0:
            raise self._peer.unavailable("it closed the connection: does it take associations from our address?")
        acknowledge_at_once(self._socket)
        self._end += count


def _request(peer: Peer, proposed: Sequence[Proposed]) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(APPLICATION_CONTEXT)
    primitive.calling_ae_title, primitive.called_ae_title = peer.calling_ae_title, peer.ae_title
    contexts = []
    for number, one in enumerate(proposed):
        context = PresentationContext()
        context.context_id = 2 * number + 1
        context.abstract_syntax = UID(one.abstract_syntax)
        context.transfer_syntax = [UID(syntax) for syntax in one.transfer_syntaxes]
        contexts.append(context)
    primitive.presentation_context_definition_list = contexts
    length = MaximumLengthNotification()
    length.maximum_length_received = MAXIMUM_PDU
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION
    primitive.user_information = [length, implementation, version, *_roles(proposed)]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _roles(proposed: Sequence[Proposed]) -> list[SCP_SCU_RoleSelectionNegotiation]:
    roles = []
    for uid in sorted({one.abstract_syntax for one in proposed if one.as_scp}):
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid = UID(uid)
        role.scu_role, role.scp_role = False, True
        roles.append(role)
    return roles
