"""A network of its own for a peer: reached over a virtual cable that can be pulled. Needs root and iproute2."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Made = TypeVar("Made")

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


class Namespace:
    """`address` is where what listens inside is reached. While the cable is pulled, packets vanish: nobody is told."""

    def __init__(self, name: str, far_end: str, address: str) -> None:
        self.name, self.address, self._far_end = name, address, far_end

    def pull(self) -> None:
        _ip("-n", self.name, "link", "set", self._far_end, "down")

    def plug_in(self) -> None:
        _ip("-n", self.name, "link", "set", self._far_end, "up")

    def inside(self, make: Callable[[], Made]) -> Made:
        """What `make` gives, called by a thread that lives in this network; sockets made there stay there."""
        made: list[Any] = []

        def run() -> None:
            try:
                with Path(f"/run/netns/{self.name}").open("rb") as entry:
                    if ctypes.CDLL(None, use_errno=True).setns(entry.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(make())
            except BaseException as error:
                made.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(made[0], BaseException):
            raise made[0]
        result: Made = made[0]
        return result


def why_not() -> str:
    """Why this machine cannot have one; "" where it can."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    if shutil.which("ip") is None:
        return "a network namespace needs ip (iproute2)"
    try:
        with a_namespace():
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespace can be made here ({type(error).__name__})"


@contextmanager
def a_namespace() -> Iterator[Namespace]:
    """A network with one cable to this machine's, until the block ends."""
    number = next(_numbers)
    name, near, far = f"peer-{os.getpid()}-{number}", f"n{os.getpid()}x{number}", f"f{os.getpid()}x{number}"
    place = (16 * os.getpid() + number) % 12_500  # of processes that begin together none has another's
    subnet = f"10.{200 + place // 250}.{place % 250}"
    here, there = f"{subnet}.1", f"{subnet}.2"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        _ip("addr", "add", f"{here}/24", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", name, "addr", "add", f"{there}/24", "dev", far)
        _ip("-n", name, "link", "set", far, "up")
        yield Namespace(name, far, there)
    finally:
        subprocess.run(["ip", "link", "del", near], capture_output=True, check=False)
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
