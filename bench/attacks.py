"""How long a C-ECHO takes while others attack the receiver, and what the attack costs it in memory.

make bench-attacks    each attack goes on for some seconds; meanwhile a fresh association is asked for, again and again

An echo is: connect, A-ASSOCIATE, C-ECHO, release, again from the start when it is refused. One that is not answered
for 20 s fails the benchmark.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.receive import CT, OURS, Server, association_request, command_of, pdu_from, running
from bench.results_file import Measured, write
from bridge.sources.upper_layer import command_set, data_pdus
from tests.services.peers import free_port

VERIFICATION = "1.2.840.10008.1.1"
ACCEPTED, GIVEN_UP_S = 2, 20.0
SECONDS, RUNS, GOAL_MS, GOAL_MB = 2.0, 5, 500.0, 256.0
Attack = Callable[[int, threading.Event], None]


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def holding(count: int, first: bytes, associated: bool = False) -> Attack:
    """So many connections that say one thing, and then nothing."""

    def attack(port: int, over: threading.Event) -> None:
        held = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                connection = connected(port)
                held.append(connection)
                if associated:
                    connection.sendall(association_request(CT))
                connection.sendall(first)
        over.wait()
        for connection in held:
            connection.close()

    return attack


def again(first: Callable[[], bytes]) -> Attack:
    """Connections one after another, each cut at once."""

    def attack(port: int, over: threading.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), connected(port) as connection:
                connection.sendall(first())

    return attack


def slow(port: int, over: threading.Event) -> None:
    """Requests that arrive a byte at a time."""
    request = association_request(CT)
    held = [connected(port) for _ in range(50)]
    for byte in request:
        for connection in held:
            with contextlib.suppress(OSError):
                connection.sendall(bytes([byte]))
        if over.wait(0.2):
            break
    for connection in held:
        connection.close()


def storing(port: int, over: threading.Event) -> None:
    """Objects that never end, from four peers."""
    fragment = data_pdus(1, bytes(100_000), False, 131_072)
    fragment = fragment[:11] + b"\0" + fragment[12:]

    def one() -> None:
        with contextlib.suppress(OSError, RuntimeError), connected(port) as connection:
            connection.sendall(association_request(CT))
            pdu_from(connection)
            connection.sendall(data_pdus(1, command_of("1.2.3"), True, 131_072))
            while not over.is_set():
                connection.sendall(fragment)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


ATTACKS: dict[str, Attack] = {
    "nothing": lambda _port, over: over.wait() and None,
    "11 connections of one byte, held": holding(11, b"\x01"),
    "200 connections of three bytes, held": holding(200, b"\x01\0\0"),
    "1,100 idle connections": holding(1100, b""),
    "100 silent associations": holding(100, b"", associated=True),
    "connections of random bytes, one after another": again(lambda: os.urandom(64)),
    "requests of 4 GB, one after another": again(lambda: b"\x01\0\xff\xff\xff\xff"),
    "50 requests, a byte each 200 ms": slow,
    "100 PDUs of 4 GB within associations": holding(100, b"\x04\0\xff\xff\xff\xff", associated=True),
    "4 objects that never end": storing,
}


def echo(port: int) -> float:
    """Milliseconds until an echo is answered over a fresh association; a refused one is asked for again at once."""
    asked = command_set({0x0002: VERIFICATION, 0x0100: 0x30, 0x0110: 1, 0x0800: 0x0101})
    started = time.perf_counter()
    while True:
        with contextlib.suppress(OSError, RuntimeError), connected(port) as connection:
            connection.sendall(association_request(VERIFICATION))
            if pdu_from(connection)[0] == ACCEPTED:
                connection.sendall(data_pdus(1, asked, True, 16384))
                if b"\0\0\0\x09\x02\0\0\0\0\0" in pdu_from(connection):
                    connection.sendall(b"\x05\0\0\0\0\x04\0\0\0\0")
                    pdu_from(connection)
                    return (time.perf_counter() - started) * 1000
        if time.perf_counter() - started > GIVEN_UP_S:
            raise RuntimeError(f"no echo was answered for {GIVEN_UP_S:g} s")


def memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def under(attack: Attack, server: Server) -> tuple[float, float, int]:
    """(p99 of the echoes in ms, growth of memory in MB, echoes) of one run."""
    before, over = memory_mb(server.pid), threading.Event()
    thread = threading.Thread(target=attack, args=(server.port, over))
    thread.start()
    echoes, most, until = [], before, time.monotonic() + SECONDS
    try:
        while time.monotonic() < until:
            echoes.append(echo(server.port))
            most = max(most, memory_mb(server.pid))
    finally:
        over.set()
        thread.join()
    return sorted(echoes)[int(len(echoes) * 0.99)], most - before, len(echoes)


def rows(server: Server, spool: Path) -> Iterator[Measured]:
    for what, attack in ATTACKS.items():
        runs = [under(attack, server) for _ in range(RUNS)]
        p99, growth = statistics.median(r[0] for r in runs), max(r[1] for r in runs)
        yield Measured(f"C-ECHO p99: {what}", p99, "ms", goal=f"≤ {GOAL_MS:g}", met=p99 <= GOAL_MS)
        yield Measured(f"memory: {what}", growth, "MB more", goal=f"≤ {GOAL_MB:g}", met=growth <= GOAL_MB)
        until = time.monotonic() + 10
        while list((spool / "incoming").iterdir()) and time.monotonic() < until:
            time.sleep(0.05)
        if list((spool / "incoming").iterdir()):
            raise RuntimeError(f"{what}: a temporary file is left")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        port, folder = free_port(), Path(name)
        command = [sys.executable, "-c", OURS, name, str(port)]
        with running("ours", command, port, lambda: 0) as server:
            found = list(rows(server, folder / "spool"))
        write("attacks", 0, {"seconds": SECONDS, "associations": 64, "connections": 512}, found, RUNS)


if __name__ == "__main__":
    main()
