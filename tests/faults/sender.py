"""A modality: stores objects at a receiver until it says that it has them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
PAUSE_S = 0.2


def send(objects: Sequence[Dataset], port: int) -> list[int | None]:
    """The status of each C-STORE; None where no answer came."""
    entity = AE("MODALITY")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = 5
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="BRIDGE")
    found: list[int | None] = [None] * len(objects)
    if association.is_established:
        with suppress(RuntimeError, ValueError):
            for n, one in enumerate(objects):
                found[n] = getattr(association.send_c_store(one), "Status", None)
        association.release()
    else:
        association.abort()
    return found


def send_until_kept(objects: Sequence[Dataset], port: int, within_s: float) -> bool:
    """False when the receiver did not say of every object, within so long, that it has it."""
    until, left = time.monotonic() + within_s, list(objects)
    while left and time.monotonic() < until:
        statuses = send(left, port)
        left = [one for one, status in zip(left, statuses, strict=True) if status != SUCCESS]
        if left:
            time.sleep(PAUSE_S)
    return not left
