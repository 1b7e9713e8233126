"""Connects the source under test to the simulator."""

from __future__ import annotations

from typing import Any

import httpx

from bridge.sources.dicom_server import DicomServer
from tests.dicom_server.archive import SimulatedArchive
from tests.dicom_server.serving import InProcess
from tests.dicom_server.tokens import Tokens

URL = "https://dicom.example"


def connect(
    archive: SimulatedArchive, api_version: Any = "v2", tokens: Tokens | None = None, **settings: Any
) -> DicomServer:
    """The source, named cloud, with the server's own clock unless another is given."""
    transport = settings.pop("transport", None) or InProcess(archive, tokens)
    settings = {"clock": lambda: archive.clock_s} | settings
    return DicomServer("cloud", URL, api_version=api_version, transport=transport, **settings)


class Elsewhere(httpx.BaseTransport):
    """The simulator under one host; every other host remembers which Authorization it was shown."""

    def __init__(self, archive: SimulatedArchive, tokens: Tokens | None = None) -> None:
        self._inside = InProcess(archive, tokens)
        self.shown: list[str | None] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != httpx.URL(URL).host:
            self.shown.append(request.headers.get("authorization"))
            return httpx.Response(200, json=[])
        return self._inside.handle_request(request)
