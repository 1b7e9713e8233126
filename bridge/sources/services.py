"""What a receiver's other services are to it: a request in, a response out, whatever the transport."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol
from uuid import uuid4

from pydicom.dataset import Dataset

from bridge.errors import InvalidDicomValue
from bridge.translate.uids import checked_uid


class CommandField(IntEnum):
    """Requests a receiver may be sent (PS3.7 E.1)."""

    C_STORE = 0x0001
    C_ECHO = 0x0030
    C_CANCEL = 0x0FFF
    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150


class Status(IntEnum):
    """DIMSE statuses this receiver answers with (PS3.7 C, PS3.4 B.2.3)."""

    SUCCESS = 0x0000
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_SOP_CLASS = 0x0118
    MISSING_ATTRIBUTE = 0x0120
    MISSING_ATTRIBUTE_VALUE = 0x0121
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124
    UNRECOGNIZED_OPERATION = 0x0211
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True)
class Request:
    """One request that is neither C-ECHO nor C-STORE. `data_set` is decoded, bounded in size and depth."""

    command_field: int
    sop_class_uid: str
    sop_instance_uid: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    action_type_id: int | None = None
    event_type_id: int | None = None
    data_set: Dataset | None = None


@dataclass(frozen=True)
class Response:
    """The answer. `comment` and `error_id` are shown to the sender: never a value of the data set."""

    status: int = Status.SUCCESS
    sop_instance_uid: str = ""
    comment: str = ""
    error_id: int | None = None
    data_set: Dataset | None = field(default=None)


class Refused(Exception):
    """Ends the handling of a request: its text becomes the answer's comment."""

    def __init__(self, status: Status, comment: str, error_id: int | None = None) -> None:
        super().__init__(comment)
        self.response = Response(status, comment=comment, error_id=error_id)


def mandatory(data_set: Dataset, keyword: str) -> Any:
    """The value of a type 1 attribute. Raises Refused, 0120 when it is absent and 0121 when it is empty (PS3.7 C.5)."""
    if keyword not in data_set:
        raise Refused(Status.MISSING_ATTRIBUTE, f"{keyword} is missing")
    value = data_set[keyword].value
    if value is None or value == "" or (data_set[keyword].VR == "SQ" and not value):
        raise Refused(Status.MISSING_ATTRIBUTE_VALUE, f"{keyword} is empty")
    return value


def mandatory_uid(data_set: Dataset, keyword: str) -> str:
    """The value of a type 1 UID. Raises Refused, 0106 when it is not one."""
    try:
        return checked_uid(str(mandatory(data_set, keyword)), keyword)
    except InvalidDicomValue:
        raise Refused(Status.INVALID_ATTRIBUTE_VALUE, f"{keyword} is not a UID") from None


def instance_uid(request: Request) -> str:
    """The UID of the instance an N-CREATE makes: one of ours when the sender gave none (PS3.7 10.1.5.1.4)."""
    return request.sop_instance_uid or f"2.25.{uuid4().int}"


class Service(Protocol):
    """A DIMSE-N service. `handle` answers only once what it accepted survives a crash."""

    @property
    def sop_classes(self) -> frozenset[str]: ...

    def handle(self, request: Request) -> Response: ...

    def catch_up(self) -> None:
        """Does what a crash or a busy database left undone; called at the start and now and then."""
        ...
