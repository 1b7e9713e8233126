"""Questions across clinical and imaging data, from Python:

import cohort

lake = cohort.open("bridge-data/lake", config="bridge.toml")
lake.ask("osteosarcoma-ct", {"older_than_years": 40}).pandas()
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cohort.opened import Cohort

__all__ = ["open"]


def open(path: str | Path, generation: str = "", *, config: str | Path | None = None) -> Cohort:
    """The lake in a folder, or in a bucket (s3://BUCKET/PREFIX), in its newest generation or the one with this id.
    All answers are of that one state.

    `config` is the bridge's TOML file, whose `[cohort]` says what may be seen; without it coarse counts.

    Raises  ConfigError when there is no data, InvalidQuery when that generation is not kept
    """
    from cohort.opened import opened  # here, so that a query's own process does not load all of it

    return opened(path, generation, Path(config) if config else None)
