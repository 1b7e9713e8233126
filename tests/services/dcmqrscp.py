"""DCMTK's query/retrieve archive of our own: its own port and folder, on loopback. It holds at most 500 studies."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.services.dcmtk import Dcmtk
from tests.services.peers import free_port, loopback_shim

START_S = 60.0


class Dcmqrscp:
    """One archive. Port and content stay the same over stop and start. It moves to `BRIDGE` at `receiver_port`."""

    ae_title = "DCMQRSCP"

    def __init__(self, folder: Path, receiver_port: int = 1) -> None:
        self._programs, self._shim = Dcmtk.installed(), loopback_shim(folder)
        self._folder, self._receiver_port = folder, receiver_port
        self._process: subprocess.Popen[bytes] | None = None
        self._sent: list[bytes] = []
        self.port = free_port()
        (folder / "db").mkdir()

    def start(self) -> None:
        """Returns once it takes connections."""
        settings = self._folder / "dcmqrscp.cfg"
        settings.write_text(
            f"NetworkTCPPort = {self.port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
            f"HostTable BEGIN\nbridge = (BRIDGE, 127.0.0.1, {self._receiver_port})\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{self.ae_title} {self._folder / 'db'} RW (500, 1024mb) ANY\nAETable END\n",
            "utf-8",
        )
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs.dcmqrscp, "-c", settings],
                env=os.environ | {"LD_PRELOAD": str(self._shim)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError("dcmqrscp does not start:\n" + (self._folder / "log").read_text("utf-8", "replace"))
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it with the processes it has started for its associations; what it holds stays."""
        if self._process is not None:
            os.killpg(self._process.pid, 15)
            self._process.wait(10)
            self._process = None

    def send(self, files: Sequence[bytes]) -> None:
        """Stores files by C-STORE."""
        self._sent += files
        self._programs.send(self.ae_title, self.port, files, self._folder / "sent")

    def delete_study(self, study_instance_uid: str) -> None:
        """It cannot delete: it is emptied, and given what stays."""
        kept = [content for content in self._sent if f"{study_instance_uid}.1.".encode() not in content]
        self.stop()
        shutil.rmtree(self._folder / "db")
        (self._folder / "db").mkdir()
        self.start()
        self._sent = []
        if kept:
            self.send(kept)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False


@contextmanager
def running_dcmqrscp(folder: Path, receiver_port: int = 1) -> Iterator[Dcmqrscp]:
    """An empty archive until the block ends. Skips or fails the test when DCMTK is not installed."""
    server = Dcmqrscp(folder, receiver_port)
    server.start()
    try:
        yield server
    finally:
        server.stop()
