"""Reading a document from outside by places: every value is checked, every error names where it stands. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NoReturn

from bridge.errors import InvalidQuery

MAXIMUM_TEXT, MAXIMUM_ITEMS, MAXIMUM_DAYS = 500, 2000, 73_000


@dataclass(frozen=True)
class Place:
    """A value and where it stands. `$name` stands for a parameter's value wherever a single value may stand."""

    given: Any
    at: str
    parameters: Mapping[str, Any]

    def wrong(self, message: str) -> NoReturn:
        """Raises InvalidQuery about this place."""
        raise InvalidQuery(f"{self.at}: {message}")

    @property
    def value(self) -> Any:
        """The value, a parameter's for `$name`."""
        if isinstance(self.given, str) and self.given.startswith("$"):
            if self.given[1:] not in self.parameters:
                self.wrong(f"{self.given[:60]} is not among the parameters")
            return self.parameters[self.given[1:]]
        return self.given

    def object(self, *allowed: str) -> Mapping[str, Place]:
        """The places within an object whose keys are among those allowed."""
        if not isinstance(self.given, Mapping):
            self.wrong("an object is needed")
        for key in self.given:
            if key not in allowed:
                raise InvalidQuery(f"{self.at}.{str(key)[:60]}: unknown; allowed: {', '.join(allowed)}")
        return {key: Place(v, f"{self.at}.{key}", self.parameters) for key, v in self.given.items()}

    def keys(self, most: int) -> Mapping[str, Place]:
        """The places within an object with any keys."""
        if not isinstance(self.given, Mapping) or not self.given or not all(isinstance(k, str) for k in self.given):
            self.wrong("an object is needed")
        if len(self.given) > most:
            self.wrong(f"at most {most} are allowed")
        return {key: Place(v, f"{self.at}.{key[:60]}", self.parameters) for key, v in self.given.items()}

    def items(self) -> Iterator[Place]:
        """The places within a list of one or more."""
        if not isinstance(self.given, Sequence) or isinstance(self.given, str) or not self.given:
            self.wrong("a list is needed")
        if len(self.given) > MAXIMUM_ITEMS:
            self.wrong(f"at most {MAXIMUM_ITEMS} are allowed")
        for n, item in enumerate(self.given):
            yield Place(item, f"{self.at}[{n}]", self.parameters)

    def one_or_more(self) -> Iterator[Place]:
        """The places within a list, or this one alone."""
        return self.items() if isinstance(self.given, list) else iter((self,))

    def text(self) -> str:
        """A text of 1 to 500 characters."""
        value = self.value
        if not isinstance(value, str) or not value.strip() or len(value) > MAXIMUM_TEXT:
            self.wrong(f"text of 1 to {MAXIMUM_TEXT} characters is needed")
        return value

    def one_of(self, allowed: Sequence[str]) -> str:
        """One of these words."""
        value = self.value
        if not isinstance(value, str) or value not in allowed:
            self.wrong(f"found {str(value)[:60]!r}; allowed: {', '.join(allowed)}")
        return value

    def boolean(self) -> bool:
        """true or false."""
        if not isinstance(self.value, bool):
            self.wrong("true or false is needed")
        return bool(self.value)

    def number(self) -> int | float:
        """A number."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
            self.wrong("a number is needed")
        return value

    def whole(self, least: int = 0, most: int = MAXIMUM_DAYS) -> int:
        """A whole number within bounds."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.wrong(f"a whole number from {least} to {most} is needed")
        return value

    def day(self) -> date:
        """A day, YYYY-MM-DD."""
        value = self.value
        try:
            return value if type(value) is date else date.fromisoformat(value)
        except (TypeError, ValueError):
            self.wrong("a day as YYYY-MM-DD is needed")
