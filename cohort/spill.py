"""Where a question that needs more memory than it may use goes on: a folder of its own, gone when it is answered."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

MAXIMUM_SPILL = 8_589_934_592
"""Bytes of disk that one question may use."""

_PREFIX = "cohort-spill-"
_OF = re.compile(rf"^{_PREFIX}(\d{{1,9}})-")


@contextmanager
def spilling() -> Iterator[str]:
    """A folder that only this user may read, in the folder for temporary files (TMPDIR); "" where none can be made.
    Folders of processes that were killed go first."""
    try:
        sweep(os.getpid())
        made = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True)
    except OSError:
        yield ""
        return
    with made as folder:
        yield folder


@lru_cache(maxsize=1)
def sweep(_pid: int) -> None:
    """Removes what killed processes left; once for each process."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        of = _OF.match(folder.name)
        if of and not _runs(int(of[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
