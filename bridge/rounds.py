"""How the verify passes of one source go on: a part of what is held at a time, round after round."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Round:
    """How far the passes have come. A round begins with the first study that is held, and ends after the last.

    Passes keep their distance while nothing is known to be missing. When the archive says that it holds fewer instances
    than are known of it, a round begins in which they press: each follows the one before at once. If such a round
    meets no difference, the archive's own number is not to be trusted by as much, and passes are calm again.

    Result  `up_to` the last study counted, "" before the first; `pressing` as above; `found` this round met a
            difference; `unexplained` how many instances were missing when a pressing round met none
    """

    up_to: str = ""
    pressing: bool = False
    found: bool = False
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
        kinds = (str, bool, bool, int)
        return read if all(map(isinstance, (read.up_to, read.pressing, read.found, read.unexplained), kinds)) else cls()

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    def before_pass(self, missing: int) -> Round:
        """What the next pass goes on with when so many instances are missing: a new round if they began to be."""
        pressing = missing > self.unexplained
        if pressing and not self.pressing:
            return Round(pressing=True, unexplained=self.unexplained)
        return replace(self, pressing=pressing)

    def after_pass(self, up_to: str, found: bool, missing: int) -> Round:
        """What the pass leaves behind that counted the studies up to this one, or up to the last of all ("")."""
        found = self.found or found
        if up_to:
            return replace(self, up_to=up_to, found=found)
        if self.pressing and not found:
            return Round(unexplained=missing)
        return Round(pressing=self.pressing, unexplained=min(self.unexplained, missing))
