"""Two defects of pynetdicom 3.0.4, mended for the tests in which it is the other side of an association.

A socket is left open where the peer went first: its shutdown() raises before close(). And where a request follows upon
another, the reactor of an association may take the answer away from who waits for it: that it is paused was said too
early, and until too late.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket


class Checkpoint:
    """Where a reactor waits while a request is under way: for `threading.Event`, which does not tell who waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = True
        self.somebody_waits = False

    def set(self) -> None:
        with self._changed:
            self._open, self.somebody_waits = True, False
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._open = False

    def wait(self) -> None:
        with self._changed:
            while not self._open:
                self.somebody_waits = True
                self._changed.wait()


def _close(association: AssociationSocket) -> None:
    if association.socket is not None:
        with suppress(OSError):
            association.socket.shutdown(socket.SHUT_RDWR)
        association.socket.close()


def _is_paused(association: Any) -> bool:
    """The reactor waits, has ended, or asks itself: it is the one that serves a C-GET, and sends its objects."""
    of_itself = threading.current_thread() is association
    return of_itself or association._kill or association._reactor_checkpoint.somebody_waits


def repair() -> None:
    """For every association of this process from now on."""
    begin = Association.__init__

    def begun(association: Any, *args: Any, **settings: Any) -> None:
        begin(association, *args, **settings)
        association._reactor_checkpoint = Checkpoint()

    Association.__init__ = begun  # type: ignore[method-assign]
    Association._is_paused = property(_is_paused, lambda _association, _told: None)  # type: ignore[assignment]
    AssociationSocket._shutdown_socket = _close
