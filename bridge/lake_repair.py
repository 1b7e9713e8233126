"""When a running bridge makes its lake good. Part of the composition root."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from bridge.errors import SinkUnavailable
from bridge.state import State
from cohort.lake import Lake
from cohort.mend import mend

log = logging.getLogger("bridge")

SHARE = 0.05
"""Of the time goes into reading a lake that cannot be published: a full disk is no damage, and lasts."""


class LakeRepair:
    """Takes what is damaged out of the lake, and marks all that is known to be delivered to it again."""

    def __init__(self, lake: Lake, state: State) -> None:
        self._lake, self._state, self._not_before = lake, state, 0.0

    def run(self) -> None:
        """Reads the newest generation and mends it. Raises as `mend`."""
        mended = mend(self._lake, datetime.now(UTC), lambda: self._state.mark_known("lake", time.time()))
        if mended.keys:
            log.warning("%s", mended.told())

    def after_a_failure(self) -> None:
        """The same when the lake could not be published or compacted, but not too often. Raises ConfigError alone."""
        began = time.monotonic()
        if began < self._not_before:
            return
        try:
            self.run()
        except SinkUnavailable as error:
            log.warning("%s", error)
        except OSError as error:
            log.warning("lake: cannot be read now: %s", error.strerror)
        finally:
            ended = time.monotonic()
            self._not_before = ended + (ended - began) / SHARE
