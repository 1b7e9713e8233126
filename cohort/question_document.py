"""A question document → a Question. Strict: documents hold data, never expressions; errors name the place. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.errors import InvalidQuery
from cohort.codes import MAXIMUM_CODES, Code, Terminology
from cohort.kinds import DERIVED, KINDS, scope
from cohort.places import Place
from cohort.question import EVERYTHING, Age, Combination, Criterion, Event, Parameter, Period, Question, Test
from cohort.question import TimeRelation as Relation
from cohort.returns import Columns, Form, returned

NAME = re.compile(r"^[a-z][a-z0-9_-]{0,59}$")
PARAMETER_TYPES = ("integer", "number", "text", "code", "code_list")
COMBINATIONS = ("all", "any", "not", "at_least")
LEAVES = ("age", *KINDS)
EVENT = ("codes", "where", "period", "relation", "of", "times", "take", "then", "having")
TESTS: Mapping[str, tuple[str, ...]] = {
    "VARCHAR": ("is", "not", "contains", "starts_with", "present"),
    "MODALITY": ("is", "not"),
    "BOOLEAN": ("is", "not", "present"),
    "DATE": ("is", "not", "at_least", "at_most", "more_than", "less_than", "present"),
    "DOUBLE": ("is", "not", "at_least", "at_most", "more_than", "less_than", "present"),
}
"""a column's type → the tests it can have. Integers are tested as DOUBLE is; columns of other types cannot be."""

AGES = ("at", "older_than_years", "at_least_years", "younger_than_years")
RELATION = ("to", "within_days", "before_days", "after_days", "before", "after", "overlaps")
PERIOD = ("within_years", "within_days", "from", "until", "at_least_days_ago")
MAXIMUM_CRITERIA, MAXIMUM_DEPTH, MAXIMUM_AGE, MAXIMUM_COLUMNS = 300, 12, 200, 60


def parse_question(
    document: Any, columns: Columns, codes: Terminology, given: Mapping[str, Any] | None = None
) -> Question:
    """The question a loaded YAML or JSON document asks, with the values given (else the defaults) of its parameters.
    Raises InvalidQuery naming the place."""
    top = Place(document, "question", {}).object(
        "name", "title", "description", "parameters", "index", "criteria", "return"
    )
    for needed in ("name", "title", "description", "return"):
        if needed not in top:
            raise InvalidQuery(f"{needed}: missing")
    name, title, description = (replace(top[n], at=n) for n in ("name", "title", "description"))
    if not NAME.match(name.text()):
        name.wrong("lower-case letters, digits, - and _ are allowed")
    parameters = tuple(parameters_of(replace(top["parameters"], at="parameters"))) if "parameters" in top else ()
    values = parameter_values(parameters, given or {})

    def place(key: str) -> Place:
        return Place(top[key].given, key, values)

    unit, listed, grouped = _returned(place("return"), columns, "index" in top)
    reader = CriteriaReader(columns, codes, unit, indexed="index" in top)
    index = reader.index(place("index")) if "index" in top else None
    criteria = reader.read(place("criteria")) if top.get("criteria") and top["criteria"].given else EVERYTHING
    return Question(
        name.text(), line_of(title), line_of(description), parameters, index, criteria, unit, listed, grouped, document
    )


def parameter_values(parameters: tuple[Parameter, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter's value: as given, else its default. Raises InvalidQuery naming the parameter."""
    known = {p.name: p for p in parameters}
    for name in given:
        if name not in known:
            raise InvalidQuery(f"parameter {str(name)[:60]}: unknown; allowed: {', '.join(known) or 'none'}")
    return {name: _checked(p, given.get(name, p.default)) for name, p in known.items()}


def _checked(parameter: Parameter, value: Any) -> Any:
    name = f"parameter {parameter.name}"
    if parameter.type in ("integer", "number"):
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise InvalidQuery(f"{name}: a number is needed") from None
        low = parameter.minimum if parameter.minimum is not None else -1e9
        high = parameter.maximum if parameter.maximum is not None else 1e9
        if not low <= number <= high:
            raise InvalidQuery(f"{name}: allowed are {low:g} to {high:g}")
        if parameter.type == "integer" and number != int(number):
            raise InvalidQuery(f"{name}: a whole number is needed")
        return int(number) if parameter.type == "integer" else number
    if not isinstance(value, str) or not value or len(value) > 200:
        raise InvalidQuery(f"{name}: text of 1 to 200 characters is needed")
    return value


def parameters_of(place: Place) -> list[Parameter]:
    """The parameters that a document declares. Raises InvalidQuery naming the place."""
    made = []
    for name, inner in place.keys(50).items():
        if not NAME.match(name):
            inner.wrong("a name is lower-case letters, digits, - and _")
        settings = inner.object("type", "default", "description", "minimum", "maximum")
        for needed in ("type", "default", "description"):
            if needed not in settings:
                raise InvalidQuery(f"{inner.at}.{needed}: missing")
        low, high = (settings[b].number() if b in settings else None for b in ("minimum", "maximum"))
        kind, default = settings["type"].one_of(PARAMETER_TYPES), settings["default"].given
        parameter = Parameter(name, kind, default, line_of(settings["description"]), low, high)
        made.append(replace(parameter, default=_checked(parameter, default)))
    return made


def _returned(place: Place, columns: Columns, indexed: bool) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    found = place.object("unit", "columns", "group_by")
    if "unit" not in found:
        raise InvalidQuery("return.unit: missing")
    unit = found["unit"].one_of(tuple(KINDS))
    if ("columns" in found) == ("group_by" in found):
        place.wrong("give columns (to list) or group_by (to count), one of them")
    names: dict[str, tuple[str, ...]] = {"columns": (), "group_by": ()}
    for key in ("columns", "group_by"):
        if key in found:
            wanted = [(item, item.text()) for item in found[key].items()]
            for item, name in wanted:
                _column(item, unit, name, columns, indexed, listed=key == "columns")
            names[key] = tuple(name for _, name in wanted)
            if len(set(names[key])) != len(names[key]) or len(names[key]) > MAXIMUM_COLUMNS:
                found[key].wrong(f"at most {MAXIMUM_COLUMNS} columns are allowed, each once")
    return unit, names["columns"], names["group_by"]


def _column(place: Place, unit: str, name: str, columns: Columns, indexed: bool, *, listed: bool) -> None:
    try:
        meaning = returned(unit, name, columns)
    except InvalidQuery as error:
        place.wrong(str(error))
    many = meaning.form is Form.PLAIN and columns[KINDS[meaning.kind].table][meaning.column].endswith("[]")
    if not listed and (many or meaning.form in (Form.LIST, Form.NAMED)):
        place.wrong("a list cannot be counted by")
    if name in ("index_date", "age_at_index_years") and not indexed:
        place.wrong("the question has no index event")


@dataclass
class CriteriaReader:
    """Reads criteria, all parts of one question together so many at most."""

    columns: Columns
    codes: Terminology
    unit: str
    indexed: bool
    seen: list[str] = field(default_factory=list)

    def index(self, place: Place) -> Event:
        """The index event: one kind, of which `take` chooses one for each patient."""
        found = place.object(*(k for k in KINDS if k != "patient"))
        if len(found) != 1:
            place.wrong("one kind of event is needed")
        ((kind, inner),) = found.items()
        settings = inner.object(*(e for e in EVENT if e not in ("relation", "times", "of", "then")))
        if "take" not in settings:
            raise InvalidQuery(f"{inner.at}.take: missing; allowed: first, last")
        return replace(self, unit="patient", indexed=False).event(kind, settings)

    def read(self, place: Place, depth: int = 0) -> Criterion:
        """A criterion."""
        self.seen.append(place.at)
        if depth > MAXIMUM_DEPTH or len(self.seen) > MAXIMUM_CRITERIA:
            place.wrong(f"at most {MAXIMUM_CRITERIA} criteria, {MAXIMUM_DEPTH} deep, are allowed")
        found = dict(place.object(*COMBINATIONS, *LEAVES, "label"))
        label = line_of(found.pop("label")) if "label" in found else ""
        if len(found) != 1:
            place.wrong(f"exactly one of {', '.join((*COMBINATIONS, *LEAVES))} is needed")
        ((kind, inner),) = found.items()
        return replace(self._one(kind, inner, depth), label=label)

    def _one(self, kind: str, place: Place, depth: int) -> Criterion:
        if kind in ("all", "any"):
            return Combination(kind, tuple(self.read(p, depth + 1) for p in place.items()))
        if kind == "not":
            return Combination(kind, (self.read(place, depth + 1),))
        if kind == "at_least":
            parts = place.object("count", "of")
            if set(parts) != {"count", "of"}:
                place.wrong("count and of are needed")
            of = tuple(self.read(p, depth + 1) for p in parts["of"].items())
            return Combination(kind, of, parts["count"].whole(1, len(of)))
        if kind == "age":
            return self._age(place)
        return self.event(kind, place.object(*EVENT), depth)

    def _age(self, place: Place) -> Age:
        found = place.object(*AGES)
        if not set(found) - {"at"}:
            place.wrong(f"one of {', '.join(AGES[1:])} is needed")
        at = found["at"].one_of(("today", "index", "unit")) if "at" in found else "today"
        self._can_refer(found.get("at", place), at)
        older, least, younger = (found[n].whole(0, MAXIMUM_AGE) if n in found else None for n in AGES[1:])
        return Age(at, older, least, younger)

    def _can_refer(self, place: Place, to: str) -> None:
        if to == "index" and not self.indexed:
            place.wrong("there is no index event to refer to here")
        if to == "unit" and not KINDS[self.unit].day:
            place.wrong(f"a {self.unit} has no day")

    def event(self, kind: str, found: Mapping[str, Place], depth: int = 0) -> Event:
        """An event of a kind from its settings."""
        of = found["of"].one_of(("patient",)) if "of" in found else ""
        read: dict[str, Callable[[Place], Any]] = {
            "codes": lambda p: self._coded(p, kind),
            "where": lambda p: self._tests(p, kind),
            "then": lambda p: self._tests(p, kind),
            "period": _period,
            "relation": lambda p: self._relation(p, kind, of),
            "times": lambda p: p.whole(1, 1000),
            "take": lambda p: p.one_of(("first", "last")),
            "having": lambda p: replace(self, unit=kind, indexed=False).read(p, depth + 1),
        }
        settings = {key: read[key](p) for key, p in found.items() if key != "of"}
        self._fits(kind, of, found)
        return Event(kind, of=of, **settings)

    def _fits(self, kind: str, of: str, found: Mapping[str, Place]) -> None:
        whose = scope(self.unit, kind, of)
        if "then" in found and "take" not in found:
            found["then"].wrong("needs take: first or last")
        if "take" in found and ("times" in found or not KINDS[kind].day):
            found["take"].wrong("not possible with times" if "times" in found else f"a {kind} has no day")
        if "times" in found and (whose == "self" or kind == "patient"):
            found["times"].wrong(
                f"speaks of the {kind} itself" + ("" if kind == "patient" else "; with of: patient, of the patient's")
            )
        if "period" in found and not KINDS[kind].day:
            found["period"].wrong(f"a {kind} has no day")

    def _relation(self, place: Place, kind: str, of: str) -> Relation:
        found = place.object(*RELATION)
        if "to" not in found or len(found) < 2:
            place.wrong(f"to (index or unit) and one of {', '.join(RELATION[1:])} are needed")
        to = found["to"].one_of(("index", "unit"))
        self._can_refer(found["to"], to)
        if not KINDS[kind].day:
            place.wrong(f"a {kind} has no day")
        if to == "unit" and scope(self.unit, kind, of) == "self":
            found["to"].wrong(f"speaks of the {kind} itself; with of: patient, of the patient's")
        days = {n: found[n].whole() for n in ("within_days", "before_days", "after_days") if n in found}
        if "within_days" in days and len(days) > 1:
            place.wrong("within_days stands for before_days and after_days: give it alone")
        if "within_days" in days:
            days = dict.fromkeys(("before_days", "after_days"), days["within_days"])
        flags = {n: found[n].boolean() for n in ("before", "after", "overlaps") if n in found}
        return Relation(to, days.get("before_days"), days.get("after_days"), **flags)

    def _tests(self, place: Place, kind: str) -> tuple[Test, ...]:
        types = {**self.columns[KINDS[kind].table], **DERIVED.get(kind, {})}
        made: list[Test] = []
        for column, inner in place.keys(50).items():
            type_ = {"INTEGER": "DOUBLE", "BIGINT": "DOUBLE"}.get(types.get(column, ""), types.get(column, ""))
            if type_ not in TESTS:
                allowed = [c for c, t in types.items() if t in (*TESTS, "INTEGER", "BIGINT")]
                inner.wrong(f"no column that can be tested; allowed: {', '.join(allowed)}")
            if isinstance(inner.given, Mapping):
                tests = inner.object(*TESTS[type_])
                if not tests:
                    inner.wrong(f"one of {', '.join(TESTS[type_])} is needed")
                made += [_test(column, type_, test, p) for test, p in tests.items()]
            else:
                made.append(_test(column, type_, "is", inner))
        return tuple(made)

    def _coded(self, place: Place, kind: str) -> tuple[Code, ...]:
        if KINDS[kind].codes is None:
            place.wrong(f"a {kind} has no codes; its columns stand under where")
        found = tuple(dict.fromkeys(code for p in place.one_or_more() for code in self._code(p)))
        if not 0 < len(found) <= MAXIMUM_CODES:
            place.wrong(f"one to {MAXIMUM_CODES} codes are needed")
        return found

    def _code(self, place: Place) -> list[Code]:
        found = place.object("system", "code", "list", "value_set", "descendants_of")
        if set(found) == {"system", "code"}:
            return [(found["system"].text(), p.text()) for p in found["code"].one_or_more()]
        if len(found) != 1 or "system" in found or "code" in found:
            place.wrong("one of system with code, list, value_set, descendants_of is needed")
        ((way, inner),) = found.items()
        try:
            if way == "list":
                return list(self.codes.in_list(inner.text()))
            if way == "value_set":
                return list(self.codes.in_value_set(inner.text()))
        except InvalidQuery as error:
            inner.wrong(str(error))
        parts = inner.object("system", "code")
        if set(parts) != {"system", "code"}:
            inner.wrong("system and code are needed")
        system, codes = parts["system"].text(), [p.text() for p in parts["code"].one_or_more()]
        try:
            return [c for code in codes for c in self.codes.descendants(system, code)]
        except InvalidQuery as error:
            inner.wrong(str(error))


def _test(column: str, type_: str, test: str, place: Place) -> Test:
    if test == "present":
        return Test(column, test, (place.boolean(),))
    read: Callable[[Place], Any] = {
        "BOOLEAN": Place.boolean, "DATE": Place.day, "DOUBLE": Place.number,
    }.get(type_, Place.text)  # fmt: skip
    several = test in ("is", "not", "contains", "starts_with")
    return Test(column, test, tuple(read(p) for p in place.one_or_more()) if several else (read(place),))


def _period(place: Place) -> Period:
    found = place.object(*PERIOD)
    if not found:
        place.wrong(f"one of {', '.join(PERIOD)} is needed")
    days = {n: found[n].day() if n in found else None for n in ("from", "until")}
    return Period(
        found["within_years"].whole(0, MAXIMUM_AGE) if "within_years" in found else None,
        found["within_days"].whole() if "within_days" in found else None,
        days["from"],
        days["until"],
        found["at_least_days_ago"].whole() if "at_least_days_ago" in found else None,
    )


def line_of(place: Place) -> str:
    """A text in one line. Raises InvalidQuery naming the place."""
    value = place.given
    if not isinstance(value, str) or not value.strip() or len(value) > 3000:
        place.wrong("text is needed")
    return " ".join(value.split())
