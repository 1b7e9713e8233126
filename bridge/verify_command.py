"""The command `bridge verify`. Part of the composition root."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bridge.command_line import EXIT_PARTIAL
from bridge.config import Settings
from bridge.errors import ConfigError, Unavailable
from bridge.opened_state import opened_state
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of
from bridge.sources.preamble import problem
from bridge.state import State
from bridge.state.seal import damage
from bridge.state.table_files import TABLES
from bridge.state.table_files import checked as checked_tables
from cohort.lake import Lake
from cohort.mend import mend
from cohort.store.place import place_of
from cohort.verified import checked

SHOWN = 1000

RepairOption = Annotated[
    bool, typer.Option("--repair", help="Take what is damaged out of the lake, to be filled again")
]


@dataclass
class Verified:
    """One kind of thing: how many were looked at, which are damaged; `error`: why it could not be finished."""

    kind: str
    looked_at: int = 0
    damaged: list[dict[str, str]] = field(default_factory=list)
    error: str = ""

    def add(self, found: Iterable[tuple[str, str]]) -> Verified:
        try:
            for what, why in found:
                self.looked_at += 1
                if why and len(self.damaged) < SHOWN:
                    self.damaged.append({"what": what, "problem": why})
        except Unavailable as error:
            self.error = str(error)
        return self


def verify(
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    repair: RepairOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read everything that is kept and find what changed by itself: spool, state and lake, by digests.

    Works beside a running bridge. With --repair, what is damaged in the lake is taken out before, and filled again by
    the running bridge. Exit code 1 when anything is damaged.

    Example: bridge verify --json
    """
    settings = settings_of(config_file, data_dir)
    if not settings.data_dir.is_dir():
        raise ConfigError(f"data_dir: there is no folder {settings.data_dir}")
    with Console(stderr=True).status("Reading") as status:
        if repair:
            status.update("Repair the lake")
            _repair(settings)
        found = []
        for one in parts(settings):
            status.update(f"Read {one.kind}")
            found.append(one)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        _show(found, Console())
    raise typer.Exit(EXIT_PARTIAL if any(one.damaged or one.error for one in found) else 0)


def _repair(settings: Settings) -> None:
    """Tells on stderr what was taken out."""
    with opened_state(settings) as state:
        mended = mend(Lake(place_of(settings)), datetime.now(UTC), lambda: state.mark_known("lake", time.time()))
    if mended.keys:
        typer.echo(mended.told(), err=True)


def parts(settings: Settings) -> Iterator[Verified]:
    """What is kept, each kind when it is read."""
    yield Verified("spool").add(_spool(settings.data_dir / "spool"))
    yield Verified("state").add(_state(settings))
    yield Verified("lake").add(checked(Lake(place_of(settings))))


def _spool(root: Path) -> Iterator[tuple[str, str]]:
    """Every whole object; what comes or goes meanwhile is left out."""
    for path in sorted(root.glob("*/studies/*/*/*.dcm")):
        try:
            yield str(path.relative_to(root)), problem(path)
        except FileNotFoundError:
            continue
        except OSError:
            yield str(path.relative_to(root)), "it cannot be read"


def _state(settings: Settings) -> Iterator[tuple[str, str]]:
    """SQLite: every row by its checksum. PostgreSQL: the newest contents of resources; the rest is up to its own. In a
    backup of one: every table by the digest of its file."""
    path = settings.data_dir / "state.sqlite"
    if not settings.state_url:
        if path.exists():
            problems = list(damage(path))
            yield from ((path.name, one) for one in problems)
            if not problems:
                yield path.name, ""
        yield from checked_tables(settings.data_dir / TABLES)
        return
    state = State(settings.database_url)
    try:
        yield from ((key, "" if fine else "its content is not what was written") for key, fine in state.contents())
    finally:
        state.close()


def _show(found: list[Verified], console: Console) -> None:
    table = Table("kept", "looked at", "damaged", "result")
    for one in found:
        result = one.error or ("DAMAGED" if one.damaged else "as it was written")
        table.add_row(one.kind, str(one.looked_at), str(len(one.damaged)), result)
    console.print(table)
    for one in found:
        for each in one.damaged:
            console.print(
                f"{one.kind}: {each['what']}: {each['problem']}", markup=False, highlight=False, soft_wrap=True
            )
