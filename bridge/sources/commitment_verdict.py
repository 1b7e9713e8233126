"""Whether objects that somebody asks about are safe here: found, of the class named, unharmed to their last byte."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path

from pydicom.dataset import Dataset

from bridge.errors import InvalidFile, Unavailable
from bridge.sources.part10 import read_headers
from bridge.sources.spool import intact, is_trimmed

log = logging.getLogger("bridge.receiver")

_LOOKED_UP = 500
"""Instances looked up at once."""


class EventType(IntEnum):
    """Events of storage commitment (PS3.4 J.3.3)."""

    COMMITTED = 1
    FAILURES_EXIST = 2


class FailureReason(IntEnum):
    """Why an object is not committed (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119


def verdict(
    transaction_uid: str,
    items: Sequence[Sequence[str]],
    held: Callable[[Sequence[str]], Mapping[str, Sequence[Path]]],
) -> tuple[EventType, Dataset]:
    """The event that is true now, for pairs of SOP Class and SOP Instance UID.

    Result  its type, and TransactionUID, ReferencedSOPSequence, FailedSOPSequence (PS3.4 Table J.3.3-1)
    Raises  SourceUnavailable when it cannot be known now which files there are
    """
    committed: list[Dataset] = []
    failed: list[Dataset] = []
    for start in range(0, len(items), _LOOKED_UP):
        some = items[start : start + _LOOKED_UP]
        files = held([instance for _, instance in some])
        for sop_class, instance in some:
            reason = _failure(sop_class, instance, files.get(instance, ()))
            (committed if reason is None else failed).append(_referenced(sop_class, instance, reason))
    made = Dataset()
    made.TransactionUID = transaction_uid
    if committed:
        made.ReferencedSOPSequence = committed
    if failed:
        made.FailedSOPSequence = failed
    return EventType.FAILURES_EXIST if failed else EventType.COMMITTED, made


def _failure(sop_class: str, instance: str, files: Sequence[Path]) -> FailureReason | None:
    """None when one of the files is this object, unharmed; else what is wrong with the last of them."""
    reason = FailureReason.NO_SUCH_OBJECT_INSTANCE
    for path in files:
        try:
            if is_trimmed(path):
                continue  # it is not held whole any more
            headers = read_headers(path)
            if headers.text("SOPClassUID") != sop_class:
                reason = FailureReason.CLASS_INSTANCE_CONFLICT
            elif headers.text("SOPInstanceUID") == instance and intact(path):
                return None
            else:
                reason = FailureReason.PROCESSING_FAILURE
        except FileNotFoundError:
            continue
        except (InvalidFile, OSError, Unavailable):
            reason = FailureReason.PROCESSING_FAILURE
    if reason is FailureReason.PROCESSING_FAILURE:
        log.error("storage commitment: the file of instance %s is damaged", instance)
    return reason


def _referenced(sop_class: str, instance: str, reason: FailureReason | None) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = sop_class, instance
    if reason is not None:
        made.FailureReason = reason.value
    return made
