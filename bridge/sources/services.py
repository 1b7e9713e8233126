"""What a receiver's other services are to it: a request in, a response out, whatever the transport."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from pydicom.dataset import Dataset


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
    MISSING_ATTRIBUTE = 0x0120
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_SOP_CLASS = 0x0118
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
    """The answer. `comment` is shown to the sender (Error Comment): never a value of the data set."""

    status: int = Status.SUCCESS
    sop_instance_uid: str = ""
    comment: str = ""
    data_set: Dataset | None = field(default=None)


class Service(Protocol):
    """A DIMSE-N service. `handle` answers only once what it accepted survives a crash."""

    @property
    def sop_classes(self) -> frozenset[str]: ...

    def handle(self, request: Request) -> Response: ...
