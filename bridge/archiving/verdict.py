"""What an archive's word on one object means, whether C-STORE or STOW-RS says it (PS3.4 B.2.3, PS3.18 I.2.2)."""

from __future__ import annotations

from bridge.errors import ProjectError, RefusedByServer, SinkUnavailable

_STORED = frozenset({0x0000, 0x0111})
_MEANINGS = {
    0x0110: "processing failure",
    0x0122: "it does not take this SOP class",
    0x0124: "we may not store there",
    0xC122: "it does not take this transfer syntax",
}


def verdict(status: int) -> ProjectError | None:
    """None when the archive has the object: success, a warning, or it had it before (0111).

    Result  SinkUnavailable when it has no room now (A7xx, 0213); RefusedByServer for every other failure

    >>> verdict(0xB007), verdict(0x0111)
    (None, None)
    >>> verdict(0xA700), verdict(0xA900)
    (SinkUnavailable('status A700: out of resources'), RefusedByServer('status A900: it does not match its SOP class'))
    """
    if status in _STORED or status >> 12 == 0xB:
        return None
    if status >> 8 == 0xA7 or status == 0x0213:
        return SinkUnavailable(f"status {status:04X}: out of resources")
    return RefusedByServer(f"status {status:04X}: {_meaning(status)}")


def _meaning(status: int) -> str:
    if status >> 8 == 0xA9:
        return "it does not match its SOP class"
    if status >> 12 == 0xC:
        return _MEANINGS.get(status, "the archive cannot understand it")
    return _MEANINGS.get(status, "refused")
