"""The token endpoint before the simulated DICOM server: OAuth2 client credentials, tokens that end."""

from __future__ import annotations

import time
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

PATH = "/oauth/token"
CLIENT_ID, CLIENT_SECRET, SCOPE = "bridge", "not a real secret", "https://dicom.example/.default"


class Tokens:
    """Gives tokens of a lifetime; `end` makes every token given so far worthless before its time."""

    def __init__(self, lifetime_s: float = 3600.0) -> None:
        self._lifetime_s = lifetime_s
        self._until: dict[str, float] = {}
        self.given = 0

    def end(self) -> None:
        self._until.clear()

    def admits(self, path: str, authorization: str) -> bool:
        if path == PATH:
            return True
        scheme, _, token = authorization.partition(" ")
        return scheme == "Bearer" and time.monotonic() < self._until.get(token, 0.0)

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route(PATH, self._give, methods=["POST"])

    async def _give(self, request: Request) -> Response:
        form = {key: values[0] for key, values in parse_qs((await request.body()).decode()).items()}
        expected = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "grant_type": "client_credentials"}
        if form != expected | {"scope": SCOPE}:
            return JSONResponse({"error": "invalid_client"}, 401)
        self.given += 1
        token = f"token-{self.given}"
        self._until[token] = time.monotonic() + self._lifetime_s
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": self._lifetime_s})
