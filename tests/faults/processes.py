"""The bridges of a world: who lives, who kills himself where, who is started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.services.peers import free_port

ROOT = Path(__file__).parents[2]


class Processes:
    """One bridge for each set of roles, with a port of its own. `kills` counts kill -9, `reached` the stages at which
    bridges killed themselves; `died` tells of those that ended by themselves."""

    def __init__(self, folder: Path, config: Path, roles: Sequence[tuple[str, ...]]) -> None:
        self.kills, self.reached, self.died = 0, Counter[str](), list[str]()
        self.clock, self._config, self._log = folder / "clock", config, folder / "bridge.log"
        self.clock.write_text("0", "utf-8")
        self._log.touch()
        self._roles, self.ports = roles, [free_port() for _ in roles]
        self._pids, self._armed = [0] * len(roles), dict[int, str]()
        command = [sys.executable, "-m", "tests.faults.nursery"]
        self._nursery = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __len__(self) -> int:
        return len(self._roles)

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    @property
    def addresses(self) -> list[str]:
        """Of the bridges that serve."""
        return [f"http://127.0.0.1:{p}" for p, r in zip(self.ports, self._roles, strict=True) if not r or "serve" in r]

    @property
    def armed(self) -> int:
        """How many live that will kill themselves."""
        return len(self._armed)

    def start(self, n: int, stage: str = "", nth: int = 1) -> None:
        """Returns when it is ready, or dead. It kills itself when it reaches the stage for the nth time."""
        order = {
            "config": str(self._config),
            "roles": self._roles[n],
            "port": self.ports[n],
            "stage": stage,
            "nth": nth,
        }
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(order | {"clock": str(self.clock), "log": str(self._log)}) + "\n")
        self._nursery.stdin.flush()
        pid = self._pids[n] = int(self._nursery.stdout.readline())
        if stage:
            self._armed[pid] = stage
        until = time.monotonic() + 60
        while _lives(pid) and f"ready {pid}\n" not in self.log and time.monotonic() < until:
            time.sleep(0.02)

    def kill(self, n: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pids[n], signal.SIGKILL)
            self.kills += 1
        self._armed.pop(self._pids[n], "")
        while _lives(self._pids[n]):
            time.sleep(0.01)

    def start_the_dead(self, during: str) -> None:
        """As an operating system does."""
        for n, pid in enumerate(self._pids):
            if not _lives(pid):
                stage = self._armed.pop(pid, "")
                if stage and f"killed at {stage}" in self.log:
                    self.kills += 1
                    self.reached[stage] += 1
                else:
                    self.died.append(f"during {during}")
                self.start(n)

    def end(self) -> None:
        for pid in filter(None, self._pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._nursery.kill()
        self._nursery.wait()
        for pipe in (self._nursery.stdin, self._nursery.stdout):
            if pipe is not None:
                pipe.close()


def _lives(pid: int) -> bool:
    """A process that ended and was not reaped yet does not live."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
