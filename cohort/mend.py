"""Makes a damaged lake good: takes out what is not what was written, and makes anew what can be made of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge.errors import SinkUnavailable
from cohort.fold import Fold
from cohort.generation import Generations, Head
from cohort.lake import TRIES, Lake, stamp_of
from cohort.layers import names_in, names_in_tables
from cohort.schema import dicom_tables
from cohort.stored import ROWS_REVISION
from cohort.tables import Tables
from cohort.verified import checked_manifests, problem_of

_RESOURCE = "resource_"


@dataclass(frozen=True)
class Mended:
    """What was taken out of a lake. Nothing was, when `keys` is empty.

    Result  `keys` of the objects; `tables` that had them; `types` of resources and `loads` of which something is
            missing now: what was loaded of them must be loaded again; `kept`: names of generations that stay damaged;
            `since`: when the newest whole generation was made, where later ones are lost
    """

    keys: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    loads: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    since: str = ""

    def told(self) -> str:
        """In words, without anything of a patient."""
        found = [f"lake: {len(self.keys)} damaged objects were taken out, the bridge's own content comes again"]
        if self.types:
            found.append(f"load again what was loaded of {', '.join(self.types)}")
        if self.loads:
            found.append("a load that was not published yet is damaged: load it again")
        if self.since:
            found.append(f"load again what was loaded after {self.since}")
        if self.kept:
            found.append(f"generations that stay damaged: forget {', '.join(self.kept)}")
        return "; ".join(found)


def mend(lake: Lake, now: datetime, deliver_again: Callable[[], None]) -> Mended:
    """Reads what the newest generation and the delta are made of. What is damaged or missing is taken out in a new
    generation: tables of views are made anew from the resources, the rest has to be delivered again.

    `deliver_again` is called before anything is taken out, so that a kill in between loses nothing; what is delivered
    at the same time as the generation is made counts as well.
    Raises  SinkUnavailable when the store does not answer or others were always faster
            ConfigError     when another version made the lake
    """
    generations = Generations(lake.place.store, lake.place.files)
    back = _stepped_back(lake, generations, now, deliver_again)
    hurt = set(_damaged(lake, generations))
    if not hurt:
        return back
    deliver_again()
    with lake.held_still():
        delta = sorted(key for key in hurt if not key.startswith("files/"))
        lake.place.store.delete(delta)
        files = {key.partition("/")[2] for key in hurt if key.startswith("files/")}
        tables = _without(lake, generations, files, now) if files else ()
        kept = generations.forget_damaged(files)
        generations.forget_old(now.timestamp())
    types = tuple(name.removeprefix(_RESOURCE) for name in tables if name.startswith(_RESOURCE))
    loads = tuple(key for key in delta if key.startswith("loads/") or key.endswith(".load"))
    return Mended((*back.keys, *sorted(hurt)), tables, types, loads, tuple(kept), back.since)


def _stepped_back(lake: Lake, generations: Generations, now: datetime, deliver_again: Callable[[], None]) -> Mended:
    """The newest generation with a whole manifest counts."""
    if not any(problem for _, problem in checked_manifests(lake)):
        return Mended()
    deliver_again()
    with lake.held_still():
        damaged, since = generations.step_back(now.isoformat())
    return Mended(tuple(damaged), since=since)


def _damaged(lake: Lake, generations: Generations) -> Iterator[str]:
    """The keys of objects that are not what was written: files of the newest generation, and the delta."""
    bad = {key for key in sorted(_named(generations)) if problem_of(lake, key) != ""}
    yield from sorted(bad & _named(generations))  # reading takes long: what is no longer named may be gone
    delta = [entry.key for folder in ("delta", "loads") for entry in lake.place.store.list(folder)]
    yield from (key for key in delta if problem_of(lake, key))


def _named(generations: Generations) -> set[str]:
    """The keys of the files of the newest generation."""
    return {f"files/{name}" for name in names_in_tables(generations.head().tables)}


def _without(lake: Lake, generations: Generations, files: set[str], now: datetime) -> tuple[str, ...]:
    """Publishes the newest generation without these files. Result: the tables that had them."""
    for _ in range(TRIES):
        head = generations.head()
        hurt = tuple(name for name, table in sorted(head.tables.items()) if _hurt(table, files))
        if not hurt:
            return ()
        if _published(lake, generations, head, _left(head.tables, files), now):
            return hurt
    raise SinkUnavailable("lake: other publishers were always faster than its repair; it is tried again")


def _published(lake: Lake, generations: Generations, head: Head, tables: Mapping[str, Any], now: datetime) -> bool:
    with lake.place.scratch() as scratch, Tables(lake.place.files, scratch, stamp_of(head), tables) as made:
        Fold(made)  # what has other columns than it should is made anew from the resources
        manifest = made.manifest()
        lake.place.files.keep(sorted(made.made & names_in_tables(manifest)))
    return generations.publish(head, now.isoformat(), manifest, lambda _stage: None)


def _left(tables: Mapping[str, Any], files: set[str]) -> dict[str, Any]:
    """The tables without layers that need one of the files; a copy is not needed. Where a table made of resources is
    hurt, all such tables are empty and without columns: rows of one follow from those of others."""
    tables = {
        name: dict(table) | {"layers": [_uncopied(one, files) for one in table["layers"]]}
        for name, table in tables.items()
    }
    anew = any(_hurt(table, files) and _is_made(name) for name, table in tables.items())
    return {
        name: {"columns": [], "layers": []}
        if anew and _is_made(name)
        else dict(table) | {"layers": [entry for entry in table["layers"] if not names_in(entry) & files]}
        for name, table in tables.items()
    }


def _hurt(table: Mapping[str, Any], files: set[str]) -> bool:
    return any(names_in(entry) & files for entry in table["layers"])


def _uncopied(entry: Mapping[str, Any], files: set[str]) -> dict[str, Any]:
    return {kind: value for kind, value in entry.items() if kind != "copy" or value not in files}


def _is_made(table: str) -> bool:
    """Whether a table is made of the resources in the lake."""
    return not table.startswith(_RESOURCE) and table != ROWS_REVISION and table not in dicom_tables()
