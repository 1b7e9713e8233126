"""Looking at a folder of 100,000 files: all of them new, nothing new, one new; CPU seconds, since disks are shared.

python -m bench.folder         checks what each look found before it times; five runs, medians
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.results_file import Measured, write
from bridge.ports import ChangePage
from bridge.sources.folder import Folder
from bridge.sources.tree import Tree
from bridge.state import State
from tests.builders import a_dataset, as_file

FILES, FIRST_FILES, RUNS, PER_STUDY = 100_000, 10_000, 5, 100
STUDY = "1.2.826.0.1.3680043.9.10000"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "files"
        root.mkdir()
        fill(root, FIRST_FILES, 0)
        time.sleep(3.5)  # until the folder's own time is old enough to be believed
        first = [follow(follower(Path(scratch) / f"first{n}", root))[1] for n in range(RUNS)]
        fill(root, FILES - FIRST_FILES, FIRST_FILES)
        time.sleep(3.5)
        look = follower(Path(scratch) / "many", root)
        found, whole_s = follow(look)
        assert found == FILES, found
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        idle = [timed(look, 0) for _ in range(RUNS)]
        new = [one_new(look, root, FILES + n) for n in range(RUNS)]
        thorough = [tree_look(root) for _ in range(RUNS)]
    peak = max(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024
    idle_s, new_s = statistics.median(idle), statistics.median(new)
    rows = [
        Measured(f"first look at {FIRST_FILES} files", FIRST_FILES / statistics.median(first), "files per CPU s"),
        Measured(f"first look at {FILES} files (one run)", whole_s, "CPU s"),
        Measured(f"idle look at {FILES} files", idle_s, "CPU s", goal="< 0.5", met=idle_s < 0.5),
        Measured(f"look that finds one new file among {FILES}", new_s, "CPU s", goal="< 0.5", met=new_s < 0.5),
        Measured(f"thorough listing of {FILES} files", statistics.median(thorough), "CPU s"),
        Measured("peak memory", peak, "MB"),
    ]
    write("folder", 0, {"files": FILES, "files_per_study": PER_STUDY}, rows, RUNS)


def fill(root: Path, count: int, start: int) -> None:
    """Small files, each an instance of its own."""
    template = as_file(a_dataset(study=STUDY, instance=100_000))
    for n in range(start, start + count):
        study = STUDY.replace("10000", str(10_000 + n // PER_STUDY)).encode()
        content = template.replace(STUDY.encode(), study).replace(b".1.100000", b".1.%d" % (100_000 + n))
        (root / f"{n:06}.dcm").write_bytes(content)


def follower(place: Path, root: Path) -> Callable[[], ChangePage]:
    """One page of changes, committed as the loops do."""
    place.mkdir()
    state = State(f"sqlite:///{place / 'state.sqlite'}")
    folder = Folder("inbox", root, state, time.time)

    def look() -> ChangePage:
        page = folder.changes(state.position("inbox"))
        state.commit_page("inbox", page, time.time(), 0, 0)
        return page

    return look


def follow(look: Callable[[], ChangePage]) -> tuple[int, float]:
    """(files found, CPU seconds) until caught up."""
    started, found, caught_up = time.process_time(), 0, False
    while not caught_up:
        page = look()
        found, caught_up = found + len(page.files), page.caught_up
    return found, time.process_time() - started


def timed(look: Callable[[], ChangePage], expected: int) -> float:
    found, spent = follow(look)
    assert found == expected, found
    return spent


def one_new(look: Callable[[], ChangePage], root: Path, number: int) -> float:
    fill(root, 1, number)
    time.sleep(1.5)  # until it has settled
    return timed(look, 1)


def tree_look(root: Path) -> float:
    started = time.process_time()
    found = Tree("inbox", root, {}, time.time, 1.0).look()
    assert len(found.changed) >= FILES
    return time.process_time() - started


if __name__ == "__main__":
    main()
