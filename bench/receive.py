"""C-STORE into fsynced storage, beside DCMTK's storescp, Orthanc and plain pynetdicom in the same run.

make bench-receive    every receiver must have answered 0000 to every object, and hold it, before it is timed

One sender for all: PDUs made once, only the SOP Instance UID changes, each answer awaited. storescp and Orthanc do not
fsync. All of them have TCP_NODELAY and take PDUs of 128 KB.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from bench.processes import cpu_s
from bench.results_file import Measured, write
from bridge.sources.association import acknowledge_at_once, answer_at_once
from bridge.sources.manifest import associations
from bridge.sources.upper_layer import MAXIMUM_PDU, command_set, data_pdus
from tests.builders import a_dataset
from tests.services.orthanc_server import OrthancServer
from tests.services.peers import free_port, loopback_shim, program

RUNS = 5
SIZES = {"512 KB CT slices": (524_288, 60), "10 KB objects": (10_240, 150)}
SENDERS = (1, 4)
CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT_UID = "1.2.826.0.1.3680043.10.1561.7"

OURS = """
import sys, time
from pathlib import Path
from bridge.sources.receiver import Receiver
from bridge.state import State
folder, port = Path(sys.argv[1]), int(sys.argv[2])
state = State(f"sqlite:///{folder / 's.sqlite'}")
store = lambda page: state.commit_page("rx", page, time.time(), 3, 60)
Receiver("rx", folder / "spool", state, store, time.time, ae_title="PEER", port=port, minimum_free_bytes=0).start()
time.sleep(86400)
"""

PYNETDICOM = """
import os, socket, sys
from pathlib import Path
from pynetdicom import AE, AllStoragePresentationContexts, evt
folder, port = Path(sys.argv[1]), int(sys.argv[2])
def store(event):
    path = folder / f"{event.request.AffectedSOPInstanceUID}.dcm"
    with path.open("wb") as file:
        file.write(event.encoded_dataset())
        file.flush()
        os.fsync(file.fileno())
    return 0
def at_once(event):
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
entity = AE("PEER")
entity.supported_contexts = AllStoragePresentationContexts
entity.maximum_pdu_size = 131072
entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_CONN_OPEN, at_once)])
"""


@dataclass
class Server:
    """One receiver; `held` says how many objects it has."""

    name: str
    port: int
    pid: int
    held: Callable[[], int]


@dataclass(frozen=True)
class Rate:
    """Objects a second, and the receiver's CPU milliseconds for one."""

    per_s: float
    cpu_ms: float


class Sender:
    """One association that sends objects of one size, a new SOP Instance UID each time."""

    def __init__(self, server: Server, size: int, number: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        answer_at_once(self._connection)
        self._connection.sendall(association_request(CT))
        answer = pdu_from(self._connection)
        if answer[0] != 2:
            raise RuntimeError(f"{server.name} refuses the association")
        accepted = A_ASSOCIATE_AC()
        accepted.decode(answer)
        maximum = min(accepted.to_primitive().maximum_length_received or MAXIMUM_PDU, MAXIMUM_PDU)
        self._prefix = f"{ROOT_UID}.{server.pid}.{size}.{number}.{time.time_ns() % 10**9}"
        self._count = 0
        self._uid = self._next()
        self._pdus = bytearray(data_pdus(1, _data_set(size, self._uid), False, maximum))
        self._command = bytearray(data_pdus(1, command_of(self._uid), True, maximum))

    def send(self, count: int) -> None:
        for _ in range(count):
            before, self._uid = self._uid.encode(), self._next()
            for part in (self._pdus, self._command):
                at = part.index(before)
                part[at : at + len(before)] = self._uid.encode()
            self._connection.sendall(self._command + self._pdus[:65536])
            self._connection.sendall(memoryview(self._pdus)[65536:])
            answer = pdu_from(self._connection)
            status = answer.index(b"\0\0\0\x09\x02\0\0\0") + 8
            if answer[status : status + 2] != b"\0\0":
                raise RuntimeError("an object was not stored")

    def close(self) -> None:
        self._connection.sendall(b"\x05\0\0\0\0\x04\0\0\0\0")
        pdu_from(self._connection)
        self._connection.close()

    def _next(self) -> str:
        self._count += 1
        return f"{self._prefix}.{10_000_000 + self._count}"


def pdu_from(connection: socket.socket) -> bytes:
    """The next PDU. Raises RuntimeError when the receiver closes instead."""
    found = b""
    while len(found) < 6 or len(found) < 6 + int.from_bytes(found[2:6], "big"):
        more = connection.recv(65536)
        acknowledge_at_once(connection)
        if not more:
            raise RuntimeError("the receiver closed the connection")
        found += more
    return found


def association_request(abstract_syntax: str) -> bytes:
    """An A-ASSOCIATE-RQ with one context."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "SENDER", "PEER"
    context = build_context(abstract_syntax, ExplicitVRLittleEndian)
    context.context_id = 1
    primitive.presentation_context_definition_list = [context]
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = MAXIMUM_PDU
    implementation.implementation_class_uid = AE().implementation_class_uid
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def command_of(uid: str) -> bytes:
    return command_set({0x0002: CT, 0x0100: 1, 0x0110: 1, 0x0700: 0, 0x0800: 1, 0x1000: uid})


def _data_set(size: int, uid: str) -> bytes:
    """A CT slice of about so many bytes; its UID has an even length, so that only its bytes change."""
    side = int((size - 1024) ** 0.5 / 2**0.5)
    made = a_dataset(
        study=f"{ROOT_UID}.{size}",
        SOPInstanceUID=uid,
        Rows=side,
        Columns=side,
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
        PixelData=os.urandom(2 * side * side),
    )
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    meta_length = int.from_bytes(content[140:144], "little")
    return content[144 + meta_length :]


@contextmanager
def running(name: str, command: list[str], port: int, held: Callable[[], int], **environment: str) -> Iterator[Server]:
    environment = dict(os.environ) | environment
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    try:
        yield Server(name, port, process.pid, held)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def rate(server: Server, size: int, count: int, senders: int) -> Rate:
    """What one run of so many senders side by side gives."""
    open_ = [Sender(server, size, n) for n in range(senders)]
    threads = [threading.Thread(target=s.send, args=(count,)) for s in open_]
    before, started = cpu_s(server.pid), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - started
    for sender in open_:
        sender.close()
    time.sleep(0.3)  # children that served an association have ended and are counted
    return Rate(count * senders / wall, (cpu_s(server.pid) - before) / (count * senders) * 1000)


@contextmanager
def servers(folder: Path) -> Iterator[list[Server]]:
    def files(where: Path) -> Callable[[], int]:
        return lambda: sum(1 for path in where.rglob("*") if path.is_file() and ".ndjson" not in path.name)

    with ExitStack() as stack:
        made = []
        for name, text in (("ours", OURS), ("pynetdicom", PYNETDICOM)):
            (folder / name).mkdir()
            port = free_port()
            where = folder / name / "spool" / "studies" if name == "ours" else folder / name
            command = [sys.executable, "-c", text, str(folder / name), str(port)]
            made.append(stack.enter_context(running(name, command, port, files(where))))
        shim = str(loopback_shim(folder))
        (folder / "storescp").mkdir()
        port = free_port()
        command = [
            str(program("storescp")),
            "--fork",
            "-B",
            "-pdu",
            "131072",
            "-od",
            str(folder / "storescp"),
            str(port),
        ]
        peer = running("storescp", command, port, files(folder / "storescp"), LD_PRELOAD=shim, TCP_NODELAY="1")
        made.append(stack.enter_context(peer))
        (folder / "orthanc").mkdir()
        os.environ["TCP_NODELAY"] = "1"
        orthanc = OrthancServer(folder / "orthanc", {"MaximumPduLength": 131072, "DicomThreadsCount": 4})
        orthanc.start_on_free_ports()
        stack.callback(orthanc.kill)

        def instances() -> int:
            with orthanc.client() as client:
                return int(client.get("/statistics").json()["CountInstances"])

        made.append(Server("Orthanc", orthanc.dicom_port, orthanc.pid, instances))
        yield made


def check(server: Server) -> None:
    """It holds what it said it had stored."""
    before = server.held()
    rate(server, 10_240, 20, 2)
    until = time.monotonic() + 10
    while server.held() != before + 40:
        if time.monotonic() > until:
            raise RuntimeError(f"{server.name} does not hold the 40 objects it said it had stored")
        time.sleep(0.1)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, servers(Path(name)) as peers:
        for server in peers:
            check(server)
        totals = associations(Path(name) / "ours" / "spool" / "associations")
        if [t["accepted"] for t in totals if "accepted" in t and t["received"]] != [20, 20]:
            raise RuntimeError("the manifests do not count what was received")
        rows = []
        for what, (size, count) in SIZES.items():
            for senders in SENDERS:
                runs: dict[str, list[Rate]] = {server.name: [] for server in peers}
                for _ in range(RUNS):
                    for server in peers:
                        runs[server.name].append(rate(server, size, count, senders))
                rows += _rows(f"{what}, {senders} association{'s' * (senders > 1)}", runs, size)
        write("receive", 0, {"bytes_and_objects_a_run": SIZES, "associations": list(SENDERS)}, rows, RUNS)


def _rows(what: str, runs: dict[str, list[Rate]], size: int) -> Iterator[Measured]:
    speed = {name: statistics.median(r.per_s for r in found) for name, found in runs.items()}
    cpu = {name: statistics.median(r.cpu_ms for r in found) for name, found in runs.items()}
    least = 500 if size > 100_000 else 1000
    goals = {"storescp": 0.9, "Orthanc": 3.0, "pynetdicom": 4.0}
    yield Measured(what, speed["ours"], "objects/s", goal=f"≥ {least}", met=speed["ours"] >= least)
    for peer, goal in goals.items():
        ratio = speed["ours"] / speed[peer]
        yield Measured(what, speed["ours"], "objects/s", peer, speed[peer], ratio, f"≥ {goal:g}×", ratio >= goal)
    for peer in goals:
        ratio = cpu["ours"] / cpu[peer] if cpu[peer] else None
        goal, met = ("≤ 1.0 ms", cpu["ours"] <= 1.0) if size > 100_000 else ("", None)
        yield Measured(f"{what}: CPU of the receiver", cpu["ours"], "ms/object", peer, cpu[peer], ratio, goal, met)


if __name__ == "__main__":
    main()
