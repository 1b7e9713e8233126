"""What it costs to read document objects in processes that limits can end, beside reading them in this one.

make bench-documents    a report of TID 1500, a Segmentation, a PDF of 1 MB and one of 16 MB: each time what is kept is
                        compared first. Medians of single objects, so that a busy machine shows less. The goal: at most
                        2 ms more for a report
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing

from bench.results_file import Measured, write
from bridge.document_process import DocumentProcesses
from bridge.documents.objects import kept_part
from bridge.model import InstanceName
from tests import other_documents as others
from tests.builders import STUDY, as_file
from tests.segmentations import a_segmentation
from tests.sr_documents import SEG_UID, SR_UID, a_document, as_bytes, planar

SEED, RUNS, GOAL_MS = 0, 300, 2.0
Read = Callable[[bytes, InstanceName], bytes]


def main() -> None:
    rows = []
    with closing(DocumentProcesses(1)) as processes:
        started = time.perf_counter()
        processes.kept_part(*_objects()["report"])
        rows.append(Measured("a process begun, and the first object", (time.perf_counter() - started) * 1000, "ms"))
        for what, (content, name) in _objects().items():
            assert processes.kept_part(content, name) == kept_part(content, name)
            runs = RUNS if len(content) < 1_000_000 else RUNS // 10
            apart, here = [], []
            for _ in range(runs):  # by turns, so that both meet the same machine
                here.append(_ms(kept_part, content, name))
                apart.append(_ms(processes.kept_part, content, name))
            there, alone = statistics.median(apart), statistics.median(here)
            row = Measured(f"{what}, {len(content):,} bytes", there, "ms", "in this process", alone, there / alone)
            rows.append(row)
            goal = {"goal": f"<= {GOAL_MS:g}", "met": there - alone <= GOAL_MS} if what == "report" else {}
            rows.append(Measured("  more", there - alone, "ms", **goal))
            rows.append(Measured("  a second", 1000 / there, "objects/s", "in this process", 1000 / alone))
    rows.append(Measured("load of the machine, one minute", os.getloadavg()[0], ""))
    write("documents", SEED, {"runs": RUNS}, rows, RUNS)


def _ms(read: Read, content: bytes, name: InstanceName) -> float:
    started = time.perf_counter()
    read(content, name)
    return (time.perf_counter() - started) * 1000


def _objects() -> dict[str, tuple[bytes, InstanceName]]:
    report, segmentation = as_bytes(a_document(planar())), as_bytes(a_segmentation())
    sr, seg = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4"
    found = {
        "report": (report, InstanceName(STUDY, f"{STUDY}.900", SR_UID, sr)),
        "segmentation": (segmentation, InstanceName(STUDY, f"{STUDY}.800", SEG_UID, seg)),
    }
    for megabytes in (1, 16):
        pdf = others.a_pdf(content=b"%PDF-1.7\n" + bytes(megabytes * 1_000_000 - 10))
        uids = (pdf.StudyInstanceUID, pdf.SeriesInstanceUID, pdf.SOPInstanceUID, pdf.SOPClassUID)
        found[f"PDF of {megabytes} MB"] = as_file(pdf), InstanceName(*map(str, uids))
    return found


if __name__ == "__main__":
    main()
