"""Documents are read in processes that can be ended: what hangs there, blows up or dies takes nothing with it."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import confined, document_process
from bridge.document_frames import MOST_CONTENT, receive, send
from bridge.document_process import DocumentProcesses, ReadingLimits
from bridge.documents.objects import MOST_ELEMENTS, VALUES_OF_ONE, kept_part
from bridge.errors import InvalidFile, ReadingEnded, SourceUnavailable
from bridge.model import InstanceName
from bridge.observer import Ended
from tests import other_documents as others
from tests.builders import STUDY
from tests.document_bombs import many_items, many_values
from tests.hanging_worker import DIES, HANGS, LIES, SPINS, TELLS
from tests.raw_elements import (
    DEFLATED,
    ITEM_END,
    REPORT,
    SEQUENCE_END,
    UNDEFINED,
    element,
    identity,
    item,
    part10,
    text,
)
from tests.segmentations import a_segmentation
from tests.sr_documents import SEG_UID, SR_UID, a_document, as_bytes, planar

NAME = InstanceName("1.2.3", "1.2.3.4", "1.2.3.4.5", REPORT)
SR = InstanceName(STUDY, f"{STUDY}.900", SR_UID, "1.2.840.10008.5.1.4.1.1.88.34")
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
GOOD = as_bytes(a_document(planar()))
ROOT = Path(__file__).parents[2]
CONTENT = 0x0040A730


class Watched(DocumentProcesses):
    """Its reader can be told to hang; `told` is why processes were ended."""

    def __init__(self, most: int = 2, **limits: float) -> None:
        self.told = list[Ended]()
        memory = int(limits.get("memory", 1 << 30))
        read = ReadingLimits(limits.get("deadline_s", 30.0), memory)
        super().__init__(most, read, self.told.append, "tests.hanging_worker")

    def process(self) -> str:
        """What the process says of itself, which reads next."""
        with pytest.raises(InvalidFile) as told:
            self.kept_part(TELLS, NAME)
        return str(told.value)


@pytest.fixture
def processes() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.close()


@pytest.fixture
def hurried() -> Iterator[Watched]:
    made = Watched(deadline_s=1.5, memory=320 << 20)
    yield made
    made.close()


def deep(levels: int) -> bytes:
    """A report whose content lies so deep."""
    opened = element(CONTENT, b"SQ", b"", UNDEFINED) + item(b"", UNDEFINED)
    return part10(identity() + opened * levels + (ITEM_END + SEQUENCE_END) * levels)


def test_what_is_kept_is_what_this_process_would_keep(processes: Watched) -> None:
    segmentation = as_bytes(a_segmentation())
    named = InstanceName(STUDY, f"{STUDY}.800", SEG_UID, SEGMENTATION)
    for content, name in ((GOOD, SR), (segmentation, named)):
        assert processes.kept_part(content, name) == kept_part(content, name)
    assert processes.kept_part(GOOD, SR) is GOOD
    assert processes.kept_part(segmentation, named) != segmentation
    for content in (GOOD[:-100], b"PDF", as_bytes(others.a_pdf())):
        with pytest.raises(InvalidFile) as here:
            kept_part(content, SR)
        with pytest.raises(InvalidFile, match=re.escape(str(here.value))):
            processes.kept_part(content, SR)
    assert processes.told == []


def test_a_process_reads_many_objects_and_another_takes_its_place(
    processes: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_process, "OBJECTS_OF_ONE", 3)
    seen = [processes.process() for _ in range(7)]
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]


def test_it_has_no_environment_and_writes_no_file(processes: Watched) -> None:
    assert "environment ['OPENBLAS_NUM_THREADS'], writes nothing" in processes.process()


@pytest.mark.parametrize("word", [HANGS, SPINS])
def test_what_hangs_is_ended_at_the_deadline_and_the_next_is_read(hurried: Watched, word: bytes) -> None:
    with pytest.raises(ReadingEnded, match=r"longer than 1\.5 s"):
        hurried.kept_part(word, NAME)
    assert hurried.told == [Ended.TIME]
    assert hurried.kept_part(GOOD, SR) == GOOD


def test_what_dies_by_a_signal_is_told_and_the_next_is_read(processes: Watched) -> None:
    with pytest.raises(ReadingEnded, match=f"signal {int(signal.SIGSEGV)}"):
        processes.kept_part(DIES, NAME)
    assert processes.told == [Ended.CRASH]
    assert processes.kept_part(GOOD, SR) == GOOD


def test_an_answer_that_is_none_is_not_believed(processes: Watched) -> None:
    with pytest.raises(ReadingEnded, match="an answer that is none"):
        processes.kept_part(LIES, NAME)
    assert processes.kept_part(GOOD, SR) == GOOD


def test_a_process_that_died_while_it_waited_blames_nobody(processes: Watched) -> None:
    died = int(processes.process().split()[1].strip(","))
    os.kill(died, signal.SIGKILL)
    while processes._idle[0].process.poll() is None:
        time.sleep(0.01)
    assert processes.kept_part(GOOD, SR) == GOOD
    assert processes.told == []


def test_a_signal_to_stop_is_left_to_who_asks(processes: Watched) -> None:
    before = processes.process()
    os.kill(int(before.split()[1].strip(",")), signal.SIGTERM)
    assert processes.process() == before


def test_millions_of_items_are_ended_by_time() -> None:
    with closing(Watched(deadline_s=0.5)) as hurried, pytest.raises(ReadingEnded, match="longer than"):
        hurried.kept_part(part10(identity() + many_items(600_000)), NAME)


def test_what_eats_memory_is_ended_and_nothing_of_it_is_eaten_here() -> None:
    content = part10(identity() + many_values(20_000_000))
    with closing(Watched(memory=320 << 20)) as processes:
        before = _memory()
        with pytest.raises(ReadingEnded, match="more than 320 MB"):
            processes.kept_part(content, NAME)
        assert _memory() - before < 20_000_000
        assert processes.told == [Ended.MEMORY]
        assert processes.kept_part(GOOD, SR) == GOOD


def test_an_object_for_which_there_is_no_room_is_told_as_that() -> None:
    """Where it is received already, and not only where it is read."""
    with closing(Watched(memory=256 << 20)) as processes:
        with pytest.raises(ReadingEnded, match="more than 256 MB"):
            processes.kept_part(bytes(64_000_000), NAME)
        assert processes.kept_part(GOOD, SR) == GOOD


def test_bombs_that_are_seen_in_time_end_no_process(processes: Watched) -> None:
    before = processes.process()
    bombs = {
        "deflated": part10(identity() + element(0x0040A160, b"UT", bytes(50_000_000)), DEFLATED),
        "truncated": part10(identity() + element(0x0040A160, b"UT", b"", 4_000_000_000)),
        "deeper than": deep(100),
        "cannot be read": deep(100_000),
        f"more than {MOST_ELEMENTS}": part10(identity() + many_values(MOST_ELEMENTS * VALUES_OF_ONE)),
    }
    for why, content in bombs.items():
        with pytest.raises(InvalidFile, match=why):
            processes.kept_part(content, NAME)
    assert processes.process() == before


def test_frames_that_a_segmentation_only_says_it_has_cost_nothing(processes: Watched) -> None:
    before = processes.process()
    frames = element(0x00280008, b"IS", text("2147483647")) + element(0x52009230, b"SQ", b"", 4_000_000_000)
    content = part10(identity(SEGMENTATION) + frames, sop_class=SEGMENTATION)
    assert len(processes.kept_part(content, replace(NAME, sop_class_uid=SEGMENTATION))) < 1000
    assert processes.process() == before


def test_many_threads_have_few_processes_and_each_its_own_answer() -> None:
    with closing(Watched(2)) as processes, ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: processes.kept_part(GOOD, SR), range(20)))
        told = set(pool.map(lambda _: processes.process(), range(20)))
    assert read == [GOOD] * 20
    assert 1 <= len(told) <= 2


def test_a_process_that_cannot_be_begun_is_no_fault_of_the_document() -> None:
    processes = DocumentProcesses(1, module="tests.no_such_module")
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="documents"):
            processes.kept_part(GOOD, SR)


@pytest.mark.parametrize("word", ["", HANGS.decode(), SPINS.decode()])
def test_the_process_ends_with_who_asks_however_that_ends(word: str) -> None:
    command = [sys.executable, "-m", "tests.reading_asker", word]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as asker:
        assert asker.stdout is not None
        reader = int(asker.stdout.readline().split()[1])
        time.sleep(0.5)
        assert _lives(reader)
        asker.kill()
    until = time.monotonic() + 10
    while _lives(reader):
        assert time.monotonic() < until, "it goes on"
        time.sleep(0.02)


def test_closing_ends_what_waits_at_once_and_what_reads_afterwards(processes: Watched) -> None:
    waiting = int(processes.process().split()[1].strip(","))
    processes.close()
    assert not _lives(waiting)
    after = int(processes.process().split()[1].strip(","))
    assert not _lives(after)


def test_without_limits_of_the_system_it_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "resource", None)
    confined.confine(1)
    confined.allow_cpu(1)


def test_messages_are_bounded_and_nothing_but_messages() -> None:
    for sent in (
        struct.pack("!II", 2, MOST_CONTENT + 1) + b"{}",
        struct.pack("!II", 1 << 30, 0),
        struct.pack("!II", 2, 0) + b"[]",
        struct.pack("!II", 2, 0) + b"no",
    ):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(sent)
            with pytest.raises(ValueError, match=r".*"):
                receive(ours)


def test_who_sends_byte_by_byte_has_the_deadline_for_all_of_them() -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        for byte in struct.pack("!II", 60_000, 0) + b" " * 60_000:
            if stop.wait(0.02):
                return
            theirs.sendall(bytes([byte]))

    dripping = threading.Thread(target=drip)
    with ours, theirs:
        dripping.start()
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            receive(ours, started + 0.5)
        assert time.monotonic() - started < 5
        stop.set()
        dripping.join()
        send(theirs, {"a": 1}, b"content")


def _memory() -> int:
    """Bytes of this process in memory."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def _lives(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
