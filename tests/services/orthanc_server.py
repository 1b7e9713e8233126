"""A real Orthanc of our own: its own ports and folder, on loopback, with the DICOMweb plugin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.services.peers import free_port, loopback_shim, one_of, program

START_S, STOP_S = 60.0, 60.0
NEVER_S = 86_400
ATTEMPTS = 3
PLUGINS = "/usr/share/orthanc/plugins", "/usr/lib/orthanc/plugins", "/usr/local/share/orthanc/plugins"


class OrthancServer:
    """One Orthanc. Ports, address and credentials stay the same over stop, start and reset_database.

    `settings` replace or add to the configuration; without them no study is ever reported as stable.
    """

    ae_title, username, password = "ORTHANC", "reader", "correct horse"

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None) -> None:
        self._binary, self._shim = program("Orthanc"), loopback_shim(folder)
        self._plugin = one_of(*(f"{p}/libOrthancDicomWeb.so" for p in PLUGINS))
        self._folder, self._log = folder, folder / "orthanc.log"
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.http_port, self.dicom_port = free_port(), free_port()

    def start_on_free_ports(self) -> None:
        """The first start: with other ports if somebody else took them meanwhile."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self.start()
            except RuntimeError:
                self.http_port, self.dicom_port = free_port(), free_port()
        return self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def auth(self) -> tuple[str, str]:
        return self.username, self.password

    def start(self) -> None:
        """Returns once the REST API answers."""
        environment = os.environ | {"LD_PRELOAD": str(self._shim)}
        with self._log.open("ab") as log:
            command = [self._binary, self._written_settings()]
            self._process = subprocess.Popen(command, env=environment, cwd=self._folder, stdout=log, stderr=log)
        until = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError("Orthanc does not start:\n" + self._log.read_text("utf-8", "replace")[-2000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops it as an operator does; what it holds stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_S)
            self._process = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def reset_database(self) -> None:
        """Stops it, empties its folders and starts it: the numbers of its log begin again."""
        self.kill()
        for name in ("storage", "index"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        self.start()

    def upload(self, files: Sequence[bytes]) -> None:
        """Stores files by POST /instances."""
        with self.client() as client:
            for content in files:
                client.post("/instances", content=content).raise_for_status()

    def stow(self, files: Sequence[bytes]) -> None:
        """Stores files by STOW-RS (PS3.18 10.5)."""
        part = b"--limit\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(part + content + b"\r\n" for content in files) + b"--limit--\r\n"
        content_type = 'multipart/related; type="application/dicom"; boundary=limit'
        headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
        with self.client() as client:
            client.post("/dicom-web/studies", content=body, headers=headers).raise_for_status()

    def delete_study(self, study_instance_uid: str) -> None:
        """Deletes every Orthanc study with this UID."""
        with self.client() as client:
            for found in client.post("/tools/lookup", content=study_instance_uid).raise_for_status().json():
                if found["Type"] == "Study":
                    client.delete(found["Path"]).raise_for_status()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=self.auth, timeout=30, trust_env=False)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return client.get("/system").status_code == 200
        except httpx.TransportError:
            return False

    def _written_settings(self) -> Path:
        path = self._folder / "orthanc.json"
        settings = {
            "Name": "test",
            "StorageDirectory": str(self._folder / "storage"),
            "IndexDirectory": str(self._folder / "index"),
            "Plugins": [str(self._plugin)],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {self.username: self.password},
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "UnknownSopClassAccepted": True,
            "StableAge": NEVER_S,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        path.write_text(json.dumps(settings | self._settings), "utf-8")
        return path


@contextmanager
def running_orthanc(folder: Path, settings: dict[str, Any] | None = None) -> Iterator[OrthancServer]:
    """An empty Orthanc until the block ends. Skips or fails the test when Orthanc is not installed."""
    server = OrthancServer(folder, settings)
    try:
        server.start_on_free_ports()
        yield server
    finally:
        server.kill()
