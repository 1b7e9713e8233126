"""Chromium without a window, driven over its DevTools pipe: what a person sees and clicks."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.services.peers import program

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip
WAIT_S = 100.0


class Page:
    """One open page. Messages of DevTools are JSON, each ended by a NUL."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = os.fdopen(reads, "rb", buffering=0), os.fdopen(writes, "wb", buffering=0)
        self._number, self._buffer, self._session = 0, b"", ""
        self.console: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        self._reads.close()
        self._writes.close()

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def says(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        return str(self.says(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        self.says(f"document.querySelector({json.dumps(selector)}).click()")

    def wait_for(self, selector: str, text: str) -> str:
        """The text of an element once it contains `text`."""
        until = time.monotonic() + WAIT_S
        while text not in (shown := self.text(selector)):
            assert time.monotonic() < until, f"waited for {text!r} in {selector}: {shown!r}; {self.console}"
            time.sleep(0.1)
        return shown

    def size(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writes.write(json.dumps(message).encode("utf-8") + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            if answer.get("method") == "Log.entryAdded":
                self.console.append(str(answer["params"]["entry"]["text"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = self._reads.read(65_536)
            assert more, "the browser ended"
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own, until the block ends."""
    to_browser, from_browser = os.pipe(), os.pipe()

    def pipes() -> None:  # the browser reads from descriptor 3 and writes to 4
        os.dup2(to_browser[0], 203)
        os.dup2(from_browser[1], 204)
        os.dup2(203, 3)
        os.dup2(204, 4)

    command = [str(program("chromium")), *FLAGS, f"--user-data-dir={folder / 'profile'}"]
    with (folder / "chromium.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, close_fds=False, preexec_fn=pipes)
    os.close(to_browser[0])
    os.close(from_browser[1])
    page = Page(from_browser[0], to_browser[1])
    try:
        yield page
    finally:
        page.close()
        process.terminate()
        process.wait(20)
