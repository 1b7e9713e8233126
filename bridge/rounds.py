"""How the verify passes of one source go on: a part of what is held at a time, round after round."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Round:
    """How far the passes have come. A round begins with the first study that is held, and ends after the last.

    Passes keep their distance while nothing is known to be missing. When the archive says that it holds fewer instances
    than are known of it, a round begins in which they press: each follows the one before at once. Rounds press as long
    as each leaves less missing than the one before. What is left then is not explained by deletions, and passes are
    calm again until more than that is missing: an archive whose own number is wrong is not counted without end.

    Result  `up_to` the last study counted, "" before the first; `missing` how many instances were when this round began
            to press, 0 when it is calm; `unexplained` as above
    """

    up_to: str = ""
    missing: int = 0
    unexplained: int = 0

    @classmethod
    def parse(cls, text: str) -> Round:
        """The round from its text; a new one for what is none.

        >>> Round.parse(Round(up_to="1.2.3").text).up_to
        '1.2.3'
        """
        try:
            read = cls(**json.loads(text))
        except (ValueError, TypeError):
            return cls()
        fine = isinstance(read.up_to, str) and isinstance(read.missing, int) and isinstance(read.unexplained, int)
        return read if fine else cls()

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def pressing(self) -> bool:
        return self.missing > 0

    def before_pass(self, missing: int) -> Round:
        """What the next pass goes on with when so many instances are missing."""
        if missing <= self.unexplained:
            return replace(self, missing=0)
        return self if self.pressing and self.up_to else Round(missing=missing, unexplained=self.unexplained)

    def after_pass(self, up_to: str, left: int) -> Round:
        """What the pass leaves that counted the studies up to this one, or up to the last of all (""), when so many
        instances are missing besides those it found."""
        if up_to:
            return replace(self, up_to=up_to)
        if not self.pressing:
            return Round(unexplained=min(self.unexplained, left))
        return Round(missing=left, unexplained=self.unexplained) if left < self.missing else Round(unexplained=left)
