"""What brings images, and what is told while they come."""

from __future__ import annotations

from typing import Protocol

from cohort.fetch.folder import ImageFolder
from cohort.fetch.plan import Series


class Refused(Exception):
    """The archive will not give this however often it is asked. The message says what to do.

    `all_of_it`: nor anything else, as long as it does not know us.
    """

    def __init__(self, message: str, all_of_it: bool = False) -> None:
        super().__init__(message)
        self.all_of_it = all_of_it


class Stopped(Exception):
    """The person who started it wants it to end."""


class Progress(Protocol):
    """Told from several threads."""

    def received(self, size: int) -> None:
        """So many bytes came."""

    def kept(self) -> None:
        """One more instance is on disk under its name."""

    def refused(self, problem: str) -> None:
        """An object came that nobody asked for, or that cannot be used."""


class Images(Protocol):
    """An archive that images are fetched from."""

    def retrieve(self, series: Series, folder: ImageFolder, progress: Progress) -> None:
        """Brings what is missing of a series; returns when the archive has answered, whether or not all of it came.

        Raises  SourceUnavailable when asking again may help, Refused when it will not, Stopped
        """

    def close(self) -> None: ...
