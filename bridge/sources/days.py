"""StudyDate as archives give it in their lists."""

from __future__ import annotations

from contextlib import suppress
from datetime import date


def study_date(text: str) -> date | None:
    """The day of a StudyDate (PS3.5 6.2 DA); the form before 1993 is known too. None when it is none.

    >>> study_date("2024.03.01")
    datetime.date(2024, 3, 1)
    """
    digits = text.strip(" \0").replace(".", "")
    if len(digits) == 8 and digits.isascii() and digits.isdigit():
        with suppress(ValueError):
            return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    return None
