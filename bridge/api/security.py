"""What every response and request of the HTTP application goes through."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAXIMUM_BODY_BYTES = 1_048_576

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Hardened:
    """Bounds request bodies and adds the headers of HEADERS where a route did not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = _too_large(scope)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)


def _too_large(scope: Scope) -> JSONResponse | None:
    headers = {name.lower(): value for name, value in scope["headers"]}
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers:
        return JSONResponse({"error": "send a Content-Length"}, 411)
    if not length.isdigit() or int(length) > MAXIMUM_BODY_BYTES:
        return JSONResponse({"error": f"bodies are limited to {MAXIMUM_BODY_BYTES} bytes"}, 413)
    return None


def harden(app: FastAPI, allowed_hosts: Sequence[str]) -> None:
    """Adds both checks; a Host header other than `allowed_hosts` is refused (DNS rebinding)."""
    app.add_middleware(Hardened)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts))
