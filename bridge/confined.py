"""Programs of ours in processes that limits can end, for what comes from outside: both sides of such a process."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # no POSIX: what asks keeps to a deadline, and that is all
    resource = None  # type: ignore[assignment]

_ROOT = str(Path(__file__).resolve().parents[1])
_PROGRAM = "import sys, importlib; sys.path.insert(0, sys.argv[1]); importlib.import_module(sys.argv[2]).main()"


def command(module: str, *arguments: str) -> list[str]:
    """The command that calls main() of a module of this installation; its `sys.argv[3:]` are the arguments.

    -I keeps the environment and the working folder out of the search for modules; the installation is named instead.
    """
    return [sys.executable, "-I", "-c", _PROGRAM, _ROOT, module, *arguments]


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that has a group of its own, and all that it started. It is still to be waited for."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def confine(address_space: int, cpu_s: int | None = None, file_bytes: int = 0) -> None:
    """Limits this process from now on: bytes of address space, seconds of CPU, bytes of a file that it writes (it
    writes none, without); it writes no core."""
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if cpu_s is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    with suppress(ValueError):  # macOS does not know it
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))


def allow_cpu(seconds: float) -> None:
    """So much CPU time more, from now on: then this process ends by SIGXCPU."""
    if resource is not None:
        most = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), most))


def end_with_asker(line: int) -> None:
    """Ends this process, whatever it does then, when nobody is at the other end of this socket or pipe any more."""

    def wait() -> None:
        poll = select.poll()
        poll.register(line, 0)  # that it hangs up is told always
        poll.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
