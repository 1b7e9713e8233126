"""The images of studies as an archive's WADO-RS gives them, passed on as they are (PS3.18 10.4)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx

from bridge.errors import SourceUnavailable
from bridge.web.answers import check_address, explained, packed_otherwise
from bridge.web.owner import Owner

CHUNK_BYTES = 1_048_576


class OpenedImages:
    """An answer that is being read; whoever has it closes it."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.content_type: str = response.headers.get("content-type", "")

    def chunks(self) -> Iterator[bytes]:
        """Its content as it arrives; an archive that stops in the middle ends it with httpx.HTTPError."""
        return self._response.iter_bytes(CHUNK_BYTES)

    def close(self) -> None:
        self._response.close()


class StudyImages:
    """One archive's WADO-RS, with the bridge's own rights there. Redirects are not followed, no proxy is used."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        auth: httpx.Auth | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        check_address(Owner.source(name), url)
        self._name, self._url, self._timeout_s = name, url.rstrip("/"), timeout_s
        self._client = httpx.Client(
            auth=auth,
            verify=tls if tls is not None else True,
            timeout=timeout_s,
            follow_redirects=False,
            transport=transport,
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def opened(self, path: str, accept: str) -> OpenedImages | None:
        """What lies under a path that begins with /studies/; None when the archive has nothing there.

        Raises  SourceUnavailable  the archive does not answer, or not with what was asked for
        """
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        request = self._client.build_request("GET", self._url + path, headers=headers)
        try:
            response = self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            said = explained(error, setting="url", product="the archive", timeout_s=self._timeout_s)
            raise SourceUnavailable(f"source {self._name}: {said}") from None
        if response.status_code in (200, 206) and not packed_otherwise(response):
            return OpenedImages(response)
        response.close()
        if response.status_code in (404, 410):
            return None
        raise SourceUnavailable(f"source {self._name}: HTTP {response.status_code}")
