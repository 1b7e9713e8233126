"""What every store of a lake must do, and what a lake does on any: run on a folder, on moto and on a real S3 store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from cohort.lake import Lake
from cohort.sandbox import run_sql
from cohort.store.place import Place
from tests.unit.test_lake import gone, line
from tests.unit.test_layers import contents

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
STAGES = ("folded", "manifest written", "published", "delta removed", "compacted")

Opened = Callable[[str], Place]
"""The same lake, as another machine has it (by a name of the machine)."""


class StoreContract:
    """Subclasses give `opened`."""

    def test_the_store_keeps_the_promises_that_publishing_rests_on(self, opened: Opened) -> None:
        opened("a").store.check()
        assert opened("a").store.list("probe") == []

    def test_what_was_put_is_read_listed_and_deleted(self, opened: Opened, tmp_path: Path) -> None:
        store = opened("a").store
        for key, content in (("delta/b.ndjson", b"1"), ("delta/a.ndjson", b"22"), ("delta/x/c.ndjson", b"")):
            store.put(key, content)
        store.put("deltas/other", b"4")
        found = store.list("delta")
        assert [(entry.key, entry.size) for entry in found] == [
            ("delta/a.ndjson", 2), ("delta/b.ndjson", 1), ("delta/x/c.ndjson", 0),
        ]  # fmt: skip
        assert store.read("delta/a.ndjson")[0] == b"22"
        paths = store.fetch(["delta/b.ndjson", "delta/a.ndjson"], tmp_path)
        assert [path.read_bytes() for path in paths] == [b"1", b"22"]
        store.put("delta/a.ndjson", b"333")
        assert opened("b").store.read("delta/a.ndjson")[0] == b"333"
        store.delete([entry.key for entry in found])
        store.delete([found[0].key])
        assert store.list("delta") == []
        assert store.list("nothing") == []

    def test_what_is_not_there_is_not_found(self, opened: Opened, tmp_path: Path) -> None:
        store = opened("a").store
        with pytest.raises(FileNotFoundError):
            store.read("CURRENT")
        with pytest.raises(FileNotFoundError):
            [path.read_bytes() for path in store.fetch(["delta/a.ndjson"], tmp_path)]

    def test_a_file_is_sent_whole(self, opened: Opened, tmp_path: Path) -> None:
        store, content = opened("a").store, bytes(range(256)) * 90_000  # more than one part of a multipart upload
        (tmp_path / "sent").write_bytes(content)
        store.send(tmp_path / "sent", "files/sent")
        (path,) = opened("b").store.fetch(["files/sent"], tmp_path / "..")
        assert path.read_bytes() == content

    def test_an_object_is_created_once_and_replaced_by_who_knows_it(self, opened: Opened) -> None:
        store = opened("a").store
        assert store.replace("CURRENT", b"1", "")
        assert not store.create("CURRENT", b"2")
        assert not store.replace("CURRENT", b"2", "")
        content, tag = store.read("CURRENT")
        assert content == b"1"
        assert store.replace("CURRENT", b"2", tag)
        assert not store.replace("CURRENT", b"3", tag)
        assert not store.replace("nothing", b"3", tag)
        assert store.read("CURRENT")[0] == b"2"

    def test_of_many_who_create_or_replace_one_succeeds(self, opened: Opened) -> None:
        stores = [opened(name).store for name in "abcdefgh"]
        with ThreadPoolExecutor(len(stores)) as pool:
            for round_ in range(10):
                created = pool.map(lambda s, n=round_: s.create(f"generations/{n}", b"x"), stores)  # type: ignore[misc]
                assert sum(created) == 1
                tag = stores[0].read("CURRENT")[1] if round_ else ""
                moved = pool.map(
                    lambda s, t=tag, n=round_: s.replace("CURRENT", str(n).encode(), t),  # type: ignore[misc]
                    stores,
                )
                assert sum(moved) == 1


def fill(lake: Lake, *lines: dict[str, Any]) -> None:
    lake.append(lines)
    lake.publish(NOW)


def rows(lake: Lake, sql: str) -> tuple[Any, ...]:
    found = lake.current()
    assert found is not None
    return run_sql(found, sql).rows


PUBLISHER = """
import os, signal, sys
from datetime import datetime, UTC
import orjson
from pathlib import Path
from cohort.lake import Lake
from cohort.store.place import Access, in_bucket
from tests.contract.lake_store import hospital
told = orjson.loads(sys.argv[1])
access = told["access"]
place = in_bucket(told["url"], Access(**access | {"cache": Path(access["cache"])}))
reached = []
def at(where):
    reached.append(where)
    if where == told["stage"] and reached.count(where) == told["nth"]:
        os.kill(os.getpid(), signal.SIGKILL)
lake = Lake(place, at)
now = datetime(2026, 1, 1, tzinfo=UTC)
if told["first"]:
    for lines in hospital():
        with lake.loading() as append:
            append(lines)
else:
    lake.append(hospital()[0])
lake.publish(now)
lake.append(hospital()[-1])
lake.publish(now)
lake.compact(now, everything=True)
"""


def hospital() -> list[list[dict[str, Any]]]:
    """Loads that change one another's resources."""
    subject = {"reference": "Patient/p1"}
    return [
        [
            *(
                line("Patient", f"p{n}", part + 1, gender="female" if part % 2 else "male")
                for n in range(part, part + 3)
            ),
            *(line("Condition", f"c{part}-{n}", 1, subject=subject) for n in range(5)),
            gone("Condition", f"c{part - 1}-0", 2),
        ]
        for part in range(3)
    ]


class LakeContract:
    """Subclasses give `opened`."""

    def test_what_one_machine_publishes_another_reads(self, opened: Opened) -> None:
        fill(Lake(opened("a")), line("Patient", "p", gender="female"), line("Condition", "c"))
        fill(Lake(opened("b")), line("Patient", "p", 2, gender="male"), gone("Condition", "c", 2))
        assert rows(Lake(opened("c")), "SELECT gender, (SELECT count(*) FROM condition) FROM patient") == (("male", 0),)
        one, other = Lake(opened("a")), Lake(opened("c"))
        assert contents(one.current()) == contents(other.current())
        assert [g.id for g in other.generations()] == ["g000002", "g000001"]
        assert rows(one, "SELECT count(*) FROM Patient") == ((1,),)

    def test_two_who_publish_at_once_lose_nothing(self, opened: Opened) -> None:
        lakes = [Lake(opened("a")), Lake(opened("b"))]

        def work(number: int) -> None:
            for n in range(6):
                lakes[number].append([line("Patient", f"{number}-{n}"), line("Condition", f"{number}-{n}")])
                lakes[number].publish(NOW)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, range(2)))
        lakes[0].publish(NOW)
        assert rows(lakes[1], "SELECT count(*), (SELECT count(*) FROM condition) FROM patient") == ((12, 12),)
        assert not lakes[0].pending()

    def test_who_was_slower_looks_again(self, opened: Opened) -> None:
        other, seen = Lake(opened("b")), list[str]()

        def meanwhile(stage: str) -> None:
            if stage == "folded" and not seen:
                seen.append(stage)
                fill(other, line("Patient", "theirs"))

        lake = Lake(opened("a"), meanwhile)
        fill(lake, line("Patient", "ours"))
        assert rows(other, "SELECT patient_id FROM patient ORDER BY 1") == (("ours",), ("theirs",))

    def test_a_publisher_that_died_after_its_manifest_holds_up_nobody(self, opened: Opened) -> None:
        class Killed(Exception):
            pass

        def die(stage: str) -> None:
            if stage == "manifest written":
                raise Killed

        lake = Lake(opened("a"))
        fill(lake, line("Patient", "1"))
        with pytest.raises(Killed):
            fill(Lake(opened("a"), die), line("Patient", "2"))
        assert rows(lake, "SELECT patient_id FROM patient") == (("1",),)
        assert [g.id for g in lake.generations()] == ["g000001"]
        fill(Lake(opened("b")), line("Patient", "3"))
        assert rows(lake, "SELECT patient_id FROM patient ORDER BY 1") == (("1",), ("2",), ("3",))

    def test_rows_replaced_elsewhere_while_a_compaction_runs_do_not_come_back(self, opened: Opened) -> None:
        lake, other = Lake(opened("a")), Lake(opened("b"))
        fill(lake, *(line("Condition", f"c{n}") for n in range(10)))
        fill(lake, gone("Condition", "c1", 2))

        def meanwhile(stage: str) -> None:
            if stage == "compacted":
                fill(other, gone("Condition", "c2", 2), line("Condition", "new"))

        assert Lake(opened("a"), meanwhile).compact(NOW, everything=True)
        found = rows(other, "SELECT condition_id FROM condition ORDER BY 1")
        assert found == tuple((i,) for i in sorted([f"c{n}" for n in (0, *range(3, 10))] + ["new"]))

    def test_a_reader_sees_whole_generations_while_another_machine_publishes(self, opened: Opened) -> None:
        lake, reader, seen = Lake(opened("a")), Lake(opened("b")), set[int]()
        fill(lake, line("Patient", "0"))
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(
                lambda: [fill(lake, line("Patient", str(n)), line("Condition", str(n))) for n in range(1, 9)]
            )
            while not done.done():
                ((patients, conditions),) = rows(
                    reader, "SELECT count(*), (SELECT count(*) FROM condition) FROM patient"
                )
                assert patients == conditions + 1
                seen.add(patients)
            done.result()
        assert seen


class KilledContract:
    """Subclasses give `opened` and `access`: how a process of its own opens the lake of the machine "a"."""

    @pytest.mark.timeout(200)
    @pytest.mark.parametrize("nth", [1, 2])
    @pytest.mark.parametrize("stage", STAGES)
    def test_killed_anywhere_another_machine_goes_on(
        self, opened: Opened, access: dict[str, Any], tmp_path: Path, stage: str, nth: int
    ) -> None:
        def run(*, first: bool, stage: str = "-") -> int:
            told = {"url": opened("a").url, "access": access, "stage": stage, "nth": nth, "first": first}
            command = [sys.executable, "-c", PUBLISHER, orjson.dumps(told).decode()]
            return subprocess.run(command, check=False, cwd=ROOT, timeout=90).returncode

        assert run(first=True, stage=stage) == (0 if (stage, nth) == ("compacted", 2) else -9)
        before = Lake(opened("b")).current()
        if before is not None:
            contents(before)  # whatever was published can be read
        assert run(first=False) == 0
        lake, alone = Lake(opened("b")), Lake(tmp_path / "alone")
        fill(alone, *(one for lines in hospital() for one in lines))
        assert contents(lake.current()) == contents(alone.current())
        assert not lake.pending()
