"""An archive, a FHIR server, bridges between them, and everything that goes wrong with them."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from bridge.config import Settings, load
from bridge.state import State
from cohort.lake import Lake
from cohort.mend import mend
from cohort.store.place import place_of
from tests.dicom_files import dicom_bytes, dicom_dataset
from tests.dicom_server.archive import SimulatedArchive
from tests.dicom_server.serving import over_tcp
from tests.document_bombs import many_items, many_values
from tests.faults.processes import Processes
from tests.faults.schedule import Fault
from tests.faults.sender import send, send_until_kept
from tests.fhir_fake import FhirFake, over_http
from tests.policies import EVERYTHING_TOML
from tests.raw_elements import REPORT
from tests.services.fault_proxy import Rates, running_fault_proxy
from tests.services.namespace import a_namespace, why_not
from tests.services.peers import free_port
from tests.services.postgresql import PostgreSql
from tests.web_server import Asked, Reply, web_server

RECEIVED = "Received"
STUDY = "1.2.826.0.1.3680043.10.1561.7"
EVERYTHING: tuple[tuple[str, ...], ...] = ((),)
SHARED = (("poll", "work"), ("poll", "work"), ("deliver", "serve"), ("deliver", "serve"))
"""The roles of the bridges: of the one on SQLite, and of those on PostgreSQL. The first has no roles named: all."""

DISKS = {"state": "state", "lake": "data/lake", "spool": "data/spool"}
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
port = "${{PORT}}"
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
RECEIVER = """
[[sources]]
kind = "receiver"
name = "receiver"
port = {dicom_port}
minimum_free_bytes = 0
"""
"""Of the bridge on SQLite: several processes with one receiver are not what the rest of this is about."""

KEPT_WITHIN_S = 60.0


class World:
    """Everything of one run: the bridges, what they read and write, and what happened to them (`faults`)."""

    def __init__(self, folder: Path, seed: int, state_url: str, database: PostgreSql | None, stack: ExitStack) -> None:
        self.folder, self._random, self._database = folder, Random(seed), database
        self.faults, self._meeting = Counter[str](), "the start"
        self.archive, self.known, self.received = SimulatedArchive(), list[str](), dict[str, int]()
        self.fhir, lock = FhirFake(), threading.Lock()
        server = stack.enter_context(web_server())
        answer = over_http(self.fhir)

        def one_after_another(asked: Asked) -> Reply:
            with lock:
                return answer(asked)

        server.answer = one_after_another
        self._pacs_serving, self._pacs_port = stack.enter_context(ExitStack()), free_port()
        self._serve_pacs()
        self._cable = None if why_not() else stack.enter_context(a_namespace())
        pacs = f"http://127.0.0.1:{self._pacs_port}"
        self.pacs = stack.enter_context(running_fault_proxy(pacs, seed, hang_s=6, network=self._cable))
        ehr = f"{server.url}/fhir"
        self.ehr = stack.enter_context(running_fault_proxy(ehr, seed + 1, hang_s=6, network=self._cable))
        for disk in DISKS.values():
            (folder / disk).mkdir(parents=True)
            if _mounted(folder / disk):
                stack.callback(subprocess.run, ["umount", "--lazy", str(folder / disk)], check=True)
        self.state_url = state_url or f"sqlite:///{folder}/state/state.sqlite"
        self._dicom_port = 0 if database else free_port()
        settings = {"state_url": self.state_url, "pacs": self.pacs.url, "ehr": self.ehr.url}
        self.config = folder / "bridge.toml"
        receiver = RECEIVER.format(dicom_port=self._dicom_port) if self._dicom_port else ""
        limits = {"reading_s": READING_S, "reading_mb": READING_MB}
        configuration = CONFIGURATION.format(everything=EVERYTHING_TOML, **settings, **limits)
        self.config.write_text(configuration + receiver, "utf-8")
        self.bridges = Processes(folder, self.config, SHARED if database else EVERYTHING)
        stack.callback(self.bridges.end)
        for n in range(len(self.bridges)):
            self.bridges.start(n)

    def truth(self) -> dict[str, int]:
        """Study → instances, of all that archive and receiver hold."""
        return self.archive.truth() | self.received

    def load(self) -> Settings:
        """The bridges' configuration."""
        os.environ["PORT"] = str(self.bridges.ports[0])
        return load(self.config)

    def meet(self, fault: Fault) -> None:
        """Lets it happen, and be over."""
        self._meeting = str(fault)
        self.faults[f"{fault.what} {fault.how}".strip()] += 1
        self._ways()[fault.what](fault)
        self.wait(fault.pause_s)

    def wait(self, seconds: float) -> None:
        """Meanwhile who has died is started again."""
        until = time.monotonic() + seconds
        while True:
            self.bridges.start_the_dead(self._meeting)
            if time.monotonic() >= until:
                return
            time.sleep(0.05)

    def family(self, uid: str) -> str:
        """The family name of the patient of a study that archive or receiver holds."""
        return RECEIVED if uid in self.received else self._name(uid).partition("^")[0]

    def _ways(self) -> dict[str, Callable[[Fault], None]]:
        return {
            "new study": self._new_study,
            "more instances": self._more_instances,
            "patient corrected": self._patient_corrected,
            "study deleted": self._study_deleted,
            "bad documents": self._bad_documents,
            "objects sent": self._objects_sent,
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
            "archive restarted": self._archive_restarted,
            "clock moved": self._clock_moved,
            "disk full": self._disk_full,
            "lake damaged": self._lake_damaged,
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

    def _objects_sent(self, fault: Fault) -> None:
        """To the receiver, where there is one. What it says it has, it must have."""
        if not self._dicom_port:
            self._new_study(fault)
            return
        uid, n = f"{STUDY}.{len(self.known)}", len(self.known)
        self.known.append(uid)
        who = {"PatientID": f"P{n}", "PatientName": f"{RECEIVED}^A", "AccessionNumber": f"A{n}"}
        objects = [dicom_dataset(uid, f"{uid}.1", f"{uid}.1.{i}", **who) for i in range(1, int(fault.amount) + 1)]
        if fault.how == "no room":
            statuses = send(objects, self._dicom_port)
            self.faults[f"answered {sorted(str(s) for s in set(statuses))}"] += 1
            self._disks_filler("spool").unlink()
        if not send_until_kept(objects, self._dicom_port, KEPT_WITHIN_S):
            self.bridges.died.append(f"(its receiver took no objects in {KEPT_WITHIN_S:g} s) during {self._meeting}")
        self.received[uid] = len(objects)

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

    def _killed(self, fault: Fault) -> None:
        """One after the other, at moments of which nobody knows what they are the middle of."""
        for _ in range(fault.nth):
            n = self._random.randrange(len(self.bridges))
            self.wait(0.3 * self._random.random())
            self.bridges.kill(n)
            self.bridges.start(n)
            self._new_study(Fault("new study", amount=1))

    def _killed_at(self, fault: Fault) -> None:
        """All die, so that only those live that kill themselves there."""
        for n in range(len(self.bridges)):
            self.bridges.kill(n)
            self.bridges.start(n, fault.how, fault.nth)
        self._new_study(Fault("new study", amount=1))
        armed, until = self.bridges.armed, time.monotonic() + fault.for_s
        while self.bridges.armed == armed and time.monotonic() < until:
            self.wait(0.05)

    # What is around them.

    def _ehr_answers(self, fault: Fault) -> None:
        self.ehr.rates = Rates(**{fault.how: fault.amount})
        self._new_study(Fault("new study", amount=1))
        self.wait(fault.for_s)
        self.ehr.rates = Rates()

    def _pacs_answers(self, fault: Fault) -> None:
        self.pacs.rates = Rates(**{fault.how: fault.amount})
        self.wait(fault.for_s)
        self.pacs.rates = Rates()

    def _network(self, fault: Fault) -> None:
        if fault.how == "cut" and self._cable is not None:
            self._cable.pull()
            self.wait(fault.for_s)
            self._cable.plug_in()
            return
        for proxy in (self.pacs, self.ehr):
            proxy.rates = Rates(hung=1.0) if fault.how == "cut" else Rates()
            proxy.delay_s = 0.5 if fault.how == "slow" else 0.0
        self.wait(fault.for_s)
        for proxy in (self.pacs, self.ehr):
            proxy.rates, proxy.delay_s = Rates(), 0.0

    def _archive_away(self, fault: Fault) -> None:
        self.pacs.rates = Rates(cut=1.0)
        self.wait(fault.for_s)
        self.pacs.rates = Rates()

    def _archive_restarted(self, fault: Fault) -> None:
        self._pacs_serving.close()
        self.wait(fault.for_s)
        self._serve_pacs()

    def _serve_pacs(self) -> None:
        self._pacs_serving.enter_context(over_tcp(self.archive, port=self._pacs_port))

    def _clock_moved(self, fault: Fault) -> None:
        self._set_clock(fault.amount)
        self.wait(fault.for_s)
        self._set_clock(0.0)

    def _set_clock(self, by_s: float) -> None:
        new = self.bridges.clock.with_suffix(".new")
        new.write_text(str(by_s), "utf-8")
        new.replace(self.bridges.clock)

    def _disk_full(self, fault: Fault) -> None:
        filler = self._disks_filler(fault.how)
        if not filler.parent.is_mount():
            self.faults["disk full: not possible here"] += 1
            return
        with suppress(OSError), filler.open("wb") as file:
            for size in (65_536, 512):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))
                        file.flush()
        if fault.how == "spool":
            self._objects_sent(Fault("objects sent", "no room", amount=2))
        else:
            self._new_study(Fault("new study", amount=1))
            time.sleep(fault.for_s)
        filler.unlink(missing_ok=True)

    def _disks_filler(self, disk: str) -> Path:
        return self.folder / DISKS[disk] / "filler"

    def _lake_damaged(self, _fault: Fault) -> None:
        """A bit flips in files of the newest generation; somebody runs `bridge verify --repair`."""
        lake = Lake(place_of(self.load()))
        for attempt in range(2):
            generation = lake.current()
            files = sorted({one.file for t in generation.tables.values() for one in t.layers}) if generation else []
            with suppress(FileNotFoundError):  # it was of the generation before
                if files:
                    _damage(self._random.choice(files), self._random)
            time.sleep(0.2 * attempt)
        state = State(self.state_url)
        try:
            mended = mend(lake, datetime.now(UTC), lambda: state.mark_known("lake", time.time()))
        finally:
            state.close()
        self.faults["repaired by the command" if mended.keys else "repaired or replaced by the bridge before"] += 1

    def _database_killed(self, fault: Fault) -> None:
        assert self._database is not None
        self._database.stop()
        time.sleep(fault.for_s)
        self._database.start()


def _damage(file: Path, random: Random) -> None:
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


def _mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
