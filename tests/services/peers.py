"""Finds the real peers on this machine. What is missing skips a test with the reason, and fails it when CI=true."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

SYSTEM_PATH = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
"""Searched instead of PATH: pynetdicom puts tools with DCMTK's names into the virtual environment."""

INSTALL = "tests/services/install.sh installs the peers on Debian"


def missing(what: str) -> NoReturn:
    """Skips the test, or fails it where every peer must be there."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{what} is missing and CI=true: {INSTALL}", pytrace=False)
    pytest.skip(f"{what} is missing: {INSTALL}")


def program(name: str) -> Path:
    """Where a program of a peer lies."""
    found = shutil.which(name, path=SYSTEM_PATH)
    return Path(found) if found else missing(name)


def one_of(*paths: str) -> Path:
    """The first of the paths that exists."""
    return next((Path(p) for p in paths if Path(p).exists()), None) or missing(Path(paths[0]).name)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now, from below the range of outgoing connections."""
    for _ in range(100):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("no free port on 127.0.0.1")


def loopback_shim(folder: Path) -> Path:
    """The library that keeps a peer on loopback, compiled into a folder once."""
    shim = folder / "bind_loopback.so"
    if not shim.exists():
        source = Path(__file__).with_name("bind_loopback.c")
        command = [str(program("gcc")), "-O2", "-Wall", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
    return shim
