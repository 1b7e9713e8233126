"""The state's own tests, and the loops', run again on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from bridge.state import State
from tests.services.postgresql import fresh_database, running_postgresql
from tests.unit.test_sync import *  # noqa: F403  (the same tests, with the fixtures below)
from tests.unit.test_sync import Rig
from tests.unit.test_work import *  # noqa: F403

NUMBERS = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture
def state(server: str) -> Iterator[State]:
    made = State(fresh_database(server, f"t{next(NUMBERS)}"))
    yield made
    made.close()


@pytest.fixture
def rig(state: State) -> Rig:
    return Rig(state)
