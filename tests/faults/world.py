"""An archive, a FHIR server, bridges between them, and everything that goes wrong with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.dicom_files import dicom_bytes
from tests.dicom_server.archive import SimulatedArchive
from tests.dicom_server.serving import over_tcp
from tests.document_bombs import many_items, many_values
from tests.faults.schedule import Fault
from tests.fhir_fake import FhirFake, over_http
from tests.policies import EVERYTHING_TOML
from tests.raw_elements import REPORT
from tests.services.fault_proxy import Rates, running_fault_proxy
from tests.services.peers import free_port
from tests.services.postgresql import PostgreSql
from tests.web_server import Asked, Reply, web_server

ROOT = Path(__file__).parents[2]
STUDY = "1.2.826.0.1.3680043.10.1561.7"
EVERYTHING: tuple[tuple[str, ...], ...] = ((),)
SHARED = (("poll", "work"), ("poll", "work"), ("deliver",), ("deliver", "serve"))
"""The roles of the bridges: of the one on SQLite, and of those on PostgreSQL."""

DISKS = {"state": "state", "lake": "data/lake"}
"""Each is a small disk of its own, where this user may mount one."""

DISK_BYTES = 67_108_864
READING_S, READING_MB = 2.0, 256
CONFIGURATION = """
data_dir = "data"
state_url = "{state_url}"
quiet_s = 0.2
max_wait_s = 1
{everything}
[documents]
deadline_s = {reading_s}
memory_mb = {reading_mb}
[api]
port = {port}
[[sources]]
kind = "dicom_server"
name = "pacs"
url = "{pacs}"
poll_s = 0.2
sweep_s = 2
timeout_s = 3
[[sinks]]
kind = "fhir_server"
name = "ehr"
url = "{ehr}"
patients = "create"
timeout_s = 3
"""


class World:
    """Everything of one run. `kills` counts kill -9; `died` names bridges that ended by themselves."""

    def __init__(self, folder: Path, seed: int, state_url: str, database: PostgreSql | None, stack: ExitStack) -> None:
        self.folder, self._random, self._database = folder, Random(seed), database
        self.kills, self.faults, self.died = 0, Counter[str](), list[str]()
        self.archive, self.known = SimulatedArchive(), list[str]()
        self.fhir, lock = FhirFake(), threading.Lock()
        server = stack.enter_context(web_server())
        answer = over_http(self.fhir)

        def one_after_another(asked: Asked) -> Reply:
            with lock:
                return answer(asked)

        server.answer = one_after_another
        pacs = stack.enter_context(over_tcp(self.archive))
        self.pacs = stack.enter_context(running_fault_proxy(pacs, seed, hang_s=6))
        self.ehr = stack.enter_context(running_fault_proxy(f"{server.url}/fhir", seed + 1, hang_s=6))
        for disk in DISKS.values():
            (folder / disk).mkdir(parents=True)
            if _mounted(folder / disk):
                stack.callback(subprocess.run, ["umount", "--lazy", str(folder / disk)], check=True)
        self.state_url = state_url or f"sqlite:///{folder}/state/state.sqlite"
        limits = {"reading_s": READING_S, "reading_mb": READING_MB}
        settings = {"state_url": self.state_url, "pacs": self.pacs.url, "ehr": self.ehr.url, "port": free_port()}
        self.config, self._log, self._clock = folder / "bridge.toml", folder / "bridge.log", folder / "clock"
        self.config.write_text(CONFIGURATION.format(everything=EVERYTHING_TOML, **settings, **limits), "utf-8")
        self._clock.write_text("0", "utf-8")
        self._log.touch()
        command = [sys.executable, "-m", "tests.faults.nursery"]
        self._nursery = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.enter_context(self._nursery)
        stack.callback(self._nursery.kill)
        stack.callback(self._end)
        self._roles: Sequence[tuple[str, ...]] = SHARED if database else EVERYTHING
        self._armed: set[int] = set()
        self._pids = [self._born(roles) for roles in self._roles]

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def meet(self, fault: Fault) -> None:
        """Lets it happen, and be over."""
        self.faults[f"{fault.what} {fault.how}".strip()] += 1
        self._ways()[fault.what](fault)
        time.sleep(fault.pause_s)
        for n, pid in enumerate(self._pids):
            if not _lives(pid):
                if pid in self._armed:  # it came to its stage later
                    self.kills += 1
                else:
                    self.died.append(f"after {fault}")
                self._pids[n] = self._born(self._roles[n])

    def restart(self) -> None:
        """As an operator does who wants to be sure."""
        for n in range(len(self._pids)):
            os.kill(self._pids[n], signal.SIGTERM)
            self._until_dead(n, 30.0)
            self._pids[n] = self._born(self._roles[n])

    def family(self, uid: str) -> str:
        """The family name of the patient of a study that the archive holds."""
        return self._name(uid).partition("^")[0]

    def _ways(self) -> dict[str, Callable[[Fault], None]]:
        return {
            "new study": self._new_study,
            "more instances": self._more_instances,
            "patient corrected": self._patient_corrected,
            "study deleted": self._study_deleted,
            "bad documents": self._bad_documents,
            "entries lost": self._entries_lost,
            "entries tripled": lambda _: self._again(self._some_study(), 2),
            "entries late": self._entries_late,
            "numbers skipped": lambda fault: self.archive.skip(1000 * int(fault.amount)),
            "feed replayed": lambda _: self._again("", 1),
            "killed at": self._killed_at,
            "killed": self._killed,
            "ehr answers": self._ehr_answers,
            "pacs answers": self._pacs_answers,
            "network": self._network,
            "archive away": self._archive_away,
            "clock moved": self._clock_moved,
            "disk full": self._disk_full,
            "database killed": self._database_killed,
        }

    # The archive.

    def _new_study(self, fault: Fault, late_s: float = 0.0) -> str:
        uid, n = f"{STUDY}.{len(self.known)}", len(self.known)
        self.known.append(uid)
        self.archive.put(
            uid, late_s=late_s, instances=max(1, int(fault.amount)), PatientID=f"P{n}", PatientName=f"First{n}^A",
            AccessionNumber=f"A{n}",
        )  # fmt: skip
        return uid

    def _some_study(self) -> str:
        return self._random.choice(sorted(self.archive.truth()) or [""])

    def _more_instances(self, fault: Fault) -> None:
        uid = self._some_study()
        if uid:
            n = int(uid.rpartition(".")[2])
            held = len(self.archive.keys(uid))
            who = {"PatientID": f"P{n}", "PatientName": self._name(uid), "AccessionNumber": f"A{n}"}
            self.archive.put(uid, instances=int(fault.amount), first=held + 1, **who)

    def _name(self, uid: str) -> str:
        return str(self.archive.held[self.archive.keys(uid)[0]].dataset().PatientName)

    def _patient_corrected(self, fault: Fault) -> None:
        uid = self._some_study()
        if uid:
            self.archive.update(uid, PatientName=f"Corrected{fault.nth}^A")

    def _study_deleted(self, _fault: Fault) -> None:
        if len(self.archive.truth()) > 2:
            self.archive.delete(self._some_study())

    def _bad_documents(self, fault: Fault) -> None:
        """A study of an image and two reports: reading one takes longer than it may, the other needs more memory."""
        uid = self._new_study(fault)
        number = uid.rpartition(".")[2]
        who = {"PatientID": f"P{number}", "PatientName": self._name(uid), "AccessionNumber": f"A{number}"}
        for n, bomb in enumerate((many_items(600_000), many_values(8_000_000)), 1):
            report = f"{uid}.88.{n}"
            content = dicom_bytes(uid, f"{uid}.88", report, SOPClassUID=REPORT, Modality="SR", PixelData=None, **who)
            self.archive.objects[report] = content + bomb
            self.archive.store(content)

    @property
    def bad_documents(self) -> frozenset[str]:
        """SOP Instance UIDs of those that the archive holds."""
        return frozenset(key[3] for key in self.archive.held if key[3] in self.archive.objects)

    def _entries_lost(self, fault: Fault) -> None:
        uid = self._new_study(fault)
        self.archive.log = [entry for entry in self.archive.log if entry.key[1] != uid]

    def _entries_late(self, fault: Fault) -> None:
        self._new_study(fault, late_s=10.0 * fault.amount)

    def _again(self, uid: str, times: int) -> None:
        entries = [entry for entry in self.archive.log if not uid or entry.key[1] == uid]
        for entry in entries * times:
            self.archive.sequence += 1
            self.archive.log.append(replace(entry, sequence=self.archive.sequence, ticks=self.archive.now))

    # Processes.

    def _born(self, roles: tuple[str, ...], stage: str = "", nth: int = 1) -> int:
        order = {"config": str(self.config), "roles": roles, "stage": stage, "nth": nth}
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(order | {"clock": str(self._clock), "log": str(self._log)}) + "\n")
        self._nursery.stdin.flush()
        pid = int(self._nursery.stdout.readline())
        self._armed |= {pid} if stage else set()
        until = time.monotonic() + 60
        while _lives(pid) and f"ready {pid}\n" not in self.log and time.monotonic() < until:
            time.sleep(0.02)
        return pid

    def _killed(self, fault: Fault) -> None:
        n = self._random.randrange(len(self._pids))
        self._kill(n)
        time.sleep(fault.pause_s)
        self._pids[n] = self._born(self._roles[n])

    def _killed_at(self, fault: Fault) -> None:
        """All die, so that only those live that kill themselves there."""
        for n, roles in enumerate(self._roles):
            self._kill(n)
            self._pids[n] = self._born(roles, fault.how, fault.nth)
        self._new_study(Fault("new study", amount=1))
        time.sleep(fault.for_s)
        for n, roles in enumerate(self._roles):
            if not _lives(self._pids[n]):
                assert f"killed at {fault.how}" in self.log, self.log[-2000:]
                self.kills += 1
                self.faults["reached the stage"] += 1
                self._pids[n] = self._born(roles)

    def _kill(self, n: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pids[n], signal.SIGKILL)
            self.kills += 1
        self._until_dead(n, 10.0)

    def _until_dead(self, n: int, within_s: float) -> None:
        until = time.monotonic() + within_s
        while _lives(self._pids[n]):
            if time.monotonic() > until:
                self.died.append("does not end when it is told to")
                os.kill(self._pids[n], signal.SIGKILL)
            time.sleep(0.01)

    def _end(self) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # What is around them.

    def _ehr_answers(self, fault: Fault) -> None:
        self.ehr.rates = Rates(**{fault.how: fault.amount})
        self._new_study(Fault("new study", amount=1))
        time.sleep(fault.for_s)
        self.ehr.rates = Rates()

    def _pacs_answers(self, fault: Fault) -> None:
        self.pacs.rates = Rates(**{fault.how: fault.amount})
        time.sleep(fault.for_s)
        self.pacs.rates = Rates()

    def _network(self, fault: Fault) -> None:
        for proxy in (self.pacs, self.ehr):
            proxy.rates = Rates(hung=1.0) if fault.how == "cut" else Rates()
            proxy.delay_s = 0.5 if fault.how == "slow" else 0.0
        time.sleep(fault.for_s)
        for proxy in (self.pacs, self.ehr):
            proxy.rates, proxy.delay_s = Rates(), 0.0

    def _archive_away(self, fault: Fault) -> None:
        self.pacs.rates = Rates(cut=1.0)
        time.sleep(fault.for_s)
        self.pacs.rates = Rates()

    def _clock_moved(self, fault: Fault) -> None:
        self._set_clock(fault.amount)
        time.sleep(fault.for_s)
        self._set_clock(0.0)

    def _set_clock(self, by_s: float) -> None:
        new = self._clock.with_suffix(".new")
        new.write_text(str(by_s), "utf-8")
        new.replace(self._clock)

    def _disk_full(self, fault: Fault) -> None:
        folder = self.folder / DISKS[fault.how]
        if not folder.is_mount():
            self.faults["disk full: not possible here"] += 1
            return
        filler = folder / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(65_536))
                file.flush()
        self._new_study(Fault("new study", amount=1))
        time.sleep(fault.for_s)
        filler.unlink(missing_ok=True)

    def _database_killed(self, fault: Fault) -> None:
        assert self._database is not None
        self._database.stop()
        time.sleep(fault.for_s)
        self._database.start()


def _mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def _lives(pid: int) -> bool:
    """A process that ended and was not reaped yet does not live."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
