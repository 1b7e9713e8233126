"""The command `bridge tail`. Part of the composition root."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Annotated, Any

import typer

from bridge.api.changefeed import entry
from bridge.api.operations import troubles
from bridge.opened_state import opened_state
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of
from bridge.state import State
from bridge.translate.meta import instant

LOOK_S = 1.0
CHANGES_AT_ONCE = 1000


def tail(
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    since: Annotated[
        int | None, typer.Option(min=0, help="Begin after this sequence instead of now", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show what there is, then stop instead of waiting")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what happens, one line each: new versions of resources, and work that fails or is parked. Ctrl-C ends it.

    Works beside a running bridge. Names no patient: studies by UID, resources by id, no paths.

    Example: bridge tail --since 0 --once
    """
    with opened_state(settings_of(config_file, data_dir)) as state:
        begin = state.latest_revision() if since is None else since
        looks = range(1) if once else count()
        try:
            for event in happenings(state, begin, lambda: time.sleep(LOOK_S), looks):
                typer.echo(json.dumps(event) if as_json else _line(event))
        except KeyboardInterrupt:
            return


def happenings(
    state: State, since: int, pause: Callable[[], None], looks: Iterator[int] | range
) -> Iterator[dict[str, Any]]:
    """Changes after a sequence in their order, and between them what fails or is parked, each time it does so anew."""
    seen: dict[tuple[str, str], tuple[object, ...]] = {}
    for number in looks:
        if number:
            pause()
        while page := state.changes(since, CHANGES_AT_ONCE):
            yield from ({"event": change.action.value} | entry(change) for change in page)
            since = page[-1].revision
        now = {(i.queue, i.key): i for i in state.troubled()}
        for place, item in now.items():
            how = (item.generation, item.attempts, item.parked)
            if seen.get(place) != how:
                yield from troubles([item])
        seen = {place: (i.generation, i.attempts, i.parked) for place, i in now.items()}


def _line(event: dict[str, Any]) -> str:
    study = f"  study {event['studyInstanceUid']}" if "studyInstanceUid" in event else ""
    if "sequence" in event:
        what = f"{event['resourceType']}/{event['id']}  version {event['versionId']}"
        return f"{event['timestamp']}  {event['event']:<8} {what}{study}"
    return f"{instant(time.time())}  {event['event']:<8} {event['queue']}{study}  {event['error']}"
