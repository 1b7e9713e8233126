"""The DICOM upper layer of an acceptor: PDUs and command sets as bytes, negotiation by pynetdicom's codecs.

Association PDUs are decoded, negotiated and encoded by pynetdicom; nothing else of it runs here. Data PDUs and command
sets are read by this module alone, because their cost decides how fast objects arrive (PS3.8 9.3, PS3.7 6.3).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from bridge import __version__

for _name in ("pynetdicom", "pydicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # their messages quote identifiers

IMPLEMENTATION_UID = UID("2.25.148187237184310236424206226377838563984")
IMPLEMENTATION_VERSION = f"BRIDGE_{__version__}"[:16]
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

MAXIMUM_PDU = 131_072
"""The largest PDU we say that we take, and the largest we take."""

MAXIMUM_REQUEST = 65_536
MAXIMUM_CONTEXTS, MAXIMUM_SYNTAXES = 128, 64
MAXIMUM_COMMAND = 65_536
HEADER = 6

_ITEM = struct.Struct(">BxH")
_ELEMENT = struct.Struct("<HHI")
_PDV = struct.Struct(">IBB")


class Pdu(IntEnum):
    """PDU types (PS3.8 9.3.1)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class Reject(IntEnum):
    """Why an association is refused: result, source and diagnostic in one number (PS3.8 9.3.4)."""

    NO_REASON = 0x010101
    APPLICATION_CONTEXT = 0x010102
    CALLING_AE_TITLE = 0x010103
    CALLED_AE_TITLE = 0x010107
    LOCAL_LIMIT = 0x020302


class AbortReason(IntEnum):
    """Why an association is aborted by the provider (PS3.8 9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProtocolError(Exception):
    """The peer does not speak as DICOM does; the association is aborted. The message quotes nothing it sent."""

    def __init__(self, problem: str, reason: AbortReason = AbortReason.INVALID_PARAMETER) -> None:
        super().__init__(problem)
        self.reason = reason


def reject_pdu(why: Reject) -> bytes:
    return struct.pack(">BxIxBBB", Pdu.ASSOCIATE_RJ, 4, why >> 16, why >> 8 & 0xFF, why & 0xFF)


def abort_pdu(reason: AbortReason) -> bytes:
    return struct.pack(">BxIxxBB", Pdu.ABORT, 4, 2, reason)


RELEASE_RESPONSE = struct.pack(">BxI4x", Pdu.RELEASE_RP, 4)


@dataclass(frozen=True)
class Proposal:
    """What an A-ASSOCIATE-RQ asks for."""

    calling_ae_title: str
    called_ae_title: str
    maximum_pdu: int
    primitive: A_ASSOCIATE


@dataclass(frozen=True)
class Context:
    """One accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True)
class Agreement:
    """The answer to a proposal.

    Result  `pdu` the A-ASSOCIATE-AC; `contexts` by their id; `refused` how many contexts were not accepted
    """

    pdu: bytes
    contexts: Mapping[int, Context]
    refused: int


def proposal(request: bytes) -> Proposal:
    """An A-ASSOCIATE-RQ, whole, with its header. Raises ProtocolError when it is none, or past a bound."""
    if len(request) > MAXIMUM_REQUEST + HEADER:
        raise ProtocolError("the association request is too large")
    _check_items(request)
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(request)
        primitive = pdu.to_primitive()
        titles = str(primitive.calling_ae_title), str(primitive.called_ae_title)
        maximum = int(primitive.maximum_length_received or 0)
    except Exception:  # noqa: BLE001  the decoder raises whatever it stumbles over
        raise ProtocolError("the association request cannot be decoded") from None
    return Proposal(titles[0].strip(), titles[1].strip(), maximum, primitive)


def _check_items(request: bytes) -> None:
    """Items lie inside the request, and there are not too many, before anything decodes them (PS3.8 9.3.2)."""
    contexts = 0
    for kind, start, end in _items(request, 74, len(request)):
        if kind != 0x20:
            continue
        contexts += 1
        if contexts > MAXIMUM_CONTEXTS:
            raise ProtocolError(f"more than {MAXIMUM_CONTEXTS} presentation contexts")
        if sum(1 for _ in _items(request, start + 4, end)) > MAXIMUM_SYNTAXES + 1:
            raise ProtocolError(f"more than {MAXIMUM_SYNTAXES} transfer syntaxes in a presentation context")
    if not contexts:
        raise ProtocolError("no presentation context is proposed")


def _items(content: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    while position < end:
        if end - position < 4:
            raise ProtocolError("an item of the association request is cut off")
        kind, length = _ITEM.unpack_from(content, position)
        position += 4
        if position + length > end:
            raise ProtocolError("an item of the association request is longer than the request")
        yield kind, position, position + length
        position += length


def agreement(asked: Proposal, accepts: Callable[[str], bool]) -> Agreement:
    """What is accepted of a proposal: every context whose abstract syntax `accepts`, in the first transfer syntax
    proposed for it, since objects are kept as they come. Only what was proposed is offered, so it costs little."""
    proposed = asked.primitive.presentation_context_definition_list
    offered: dict[str, PresentationContext] = {}
    try:
        for one in proposed:
            name = str(one.abstract_syntax)
            if name not in offered and accepts(name):
                offered[name] = PresentationContext()
                offered[name].abstract_syntax = UID(name)
            if name in offered and one.transfer_syntax:
                offered[name].add_transfer_syntax(one.transfer_syntax[0])
        results, _ = negotiate_as_acceptor(proposed, list(offered.values()))
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(_answer(asked, results))
        encoded = bytes(pdu.encode())
    except ProtocolError:
        raise
    except Exception:  # noqa: BLE001  as above: contexts without syntaxes, UIDs that are none
        raise ProtocolError("the association request cannot be answered") from None
    contexts = {
        c.context_id: Context(str(c.abstract_syntax), str(c.transfer_syntax[0]))
        for c in results
        if c.result == 0 and c.context_id is not None
    }
    return Agreement(encoded, contexts, len(results) - len(contexts))


def _answer(asked: Proposal, results: list[PresentationContext]) -> A_ASSOCIATE:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID(APPLICATION_CONTEXT)
    primitive.calling_ae_title = asked.primitive.calling_ae_title
    primitive.called_ae_title = asked.primitive.called_ae_title
    primitive.result, primitive.result_source = 0, 1
    primitive.presentation_context_definition_results_list = results
    length = MaximumLengthNotification()
    length.maximum_length_received = MAXIMUM_PDU
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION
    primitive.user_information = [length, implementation, version, *_roles(asked, results)]
    return primitive


def _roles(asked: Proposal, results: list[PresentationContext]) -> list[SCP_SCU_RoleSelectionNegotiation]:
    """Peers may propose roles; here they are always the SCU and we the SCP, the default (PS3.7 D.3.3.4)."""
    accepted = {c.abstract_syntax for c in results if c.result == 0}
    roles = []
    for item in asked.primitive.user_information:
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid in accepted:
            role = SCP_SCU_RoleSelectionNegotiation()
            role.sop_class_uid = item.sop_class_uid
            role.scu_role, role.scp_role = bool(item.scu_role), False
            if role.scu_role:
                roles.append(role)
    return roles


@dataclass(frozen=True)
class Command:
    """A DIMSE command set (PS3.7 E): tag element number → value bytes."""

    elements: Mapping[int, bytes]

    def number(self, element: int) -> int | None:
        value = self.elements.get(element, b"")
        return int.from_bytes(value[:2], "little") if len(value) >= 2 else None

    def text(self, element: int) -> str:
        return self.elements.get(element, b"").decode("ascii", "replace").strip(" \0")

    @property
    def field(self) -> int:
        return self.number(0x0100) or 0

    @property
    def has_data_set(self) -> bool:
        return self.number(0x0800) not in (None, 0x0101)


def command(content: bytes) -> Command:
    """A command set, request or response (implicit VR little endian, group 0000). Raises ProtocolError."""
    elements: dict[int, bytes] = {}
    position, end = 0, len(content)
    while position < end:
        if end - position < 8:
            raise ProtocolError("a command set ends within an element")
        group, element, length = _ELEMENT.unpack_from(content, position)
        position += 8
        if group != 0 or length > end - position:
            raise ProtocolError("a command set holds an element that cannot stand there")
        elements[element] = content[position : position + length]
        position += length
    return Command(elements)


def request_command(content: bytes) -> Command:
    """The command set of a request. Raises ProtocolError when it is none, or says not what is asked."""
    found = command(content)
    if not found.field or found.number(0x0110) is None:
        raise ProtocolError("a command set has no CommandField or no MessageID")
    return found


def command_set(elements: Mapping[int, int | str]) -> bytes:
    """A command set as bytes: whole numbers as US, text as UID or text padded to even length; with group length."""
    body = b""
    for element, value in sorted(elements.items()):
        if isinstance(value, int):
            raw = struct.pack("<H", value)
        else:
            raw = value.encode("ascii", "replace")
            raw += (b" " if element == _ERROR_COMMENT else b"\0") * (len(raw) % 2)
        body += _ELEMENT.pack(0, element, len(raw)) + raw
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


_ERROR_COMMENT = 0x0902


def data_pdus(context_id: int, content: bytes, is_command: bool, maximum: int) -> bytes:
    """A message part as P-DATA-TF PDUs no longer than the peer takes (0: no limit)."""
    size = min(maximum or MAXIMUM_PDU, MAXIMUM_PDU) - HEADER
    pieces = [content[i : i + size] for i in range(0, len(content), size)] or [b""]
    out = []
    for number, piece in enumerate(pieces):
        control = int(is_command) | (2 if number == len(pieces) - 1 else 0)
        out.append(struct.pack(">BxI", Pdu.DATA, len(piece) + 6) + _PDV.pack(len(piece) + 2, context_id, control))
        out.append(piece)
    return b"".join(out)


def fragments(view: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """The PDVs of a P-DATA-TF's content: (context id, control header, fragment). Raises ProtocolError."""
    position, end = 0, len(view)
    if not end:
        raise ProtocolError("a P-DATA-TF is empty")
    while position < end:
        if end - position < 6:
            raise ProtocolError("a PDV is cut off")
        length, context_id, control = _PDV.unpack_from(view, position)
        if length < 2 or position + 4 + length > end:
            raise ProtocolError("a PDV is longer than its PDU")
        yield context_id, control, view[position + 6 : position + 4 + length]
        position += 4 + length
