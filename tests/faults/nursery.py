"""Starts bridges quickly: everything is imported once, and each bridge is a fork. A process of its own.

Lines of JSON: {"config", "roles", "port", "stage", "nth", "clock", "log"} starts one, and its process id is the
answer; a process that ends is reaped at the next line. A bridge kills itself where it reaches `stage` for the nth time
("": never); its clock is wrong by the seconds that the file `clock` names.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bridge import config
from bridge.compose import Bridge
from bridge.model import ALL_ROLES, Role


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        while _reaped():
            pass
        order = json.loads(line)
        child = os.fork()
        if not child:
            _become(order)
        print(child, flush=True)


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _become(order: dict[str, Any]) -> None:
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 1
    try:
        _run(order)
        code = 0
    except BaseException as error:
        print(f"ended by {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _run(order: dict[str, Any]) -> None:
    right, clock = time.time, Path(order["clock"])
    time.time = lambda: right() + float(clock.read_text("utf-8"))
    stop, reached = threading.Event(), Counter[str]()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def at(stage: str) -> None:
        reached[stage] += 1
        if stage == order["stage"] and reached[stage] == order["nth"]:
            print(f"killed at {stage} {order['nth']}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    os.environ["PORT"] = str(order["port"])
    roles = frozenset(Role(role) for role in order["roles"]) or ALL_ROLES
    bridge = Bridge(config.load(Path(order["config"])), at, roles)
    with bridge.running():
        print(f"ready {os.getpid()}", file=sys.stderr, flush=True)
        while not stop.wait(0.1):
            if bridge.failed.is_set():
                raise RuntimeError("a part of the bridge died")


if __name__ == "__main__":
    main()
