"""A FHIR search as it stands in a URL → a SearchQuery, or an InvalidQuery that names the parameter."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from bridge.errors import InvalidQuery
from bridge.translate.search_parameters import PARAMETERS, Kind, SearchParameter, date_range
from bridge.translate.search_query import Criterion, DateRange, SearchQuery, Token

MAXIMUM_PARAMETERS = 100
MAXIMUM_ALTERNATIVES = 100
MAXIMUM_VALUE = 4096
DEFAULT_COUNT, MAXIMUM_COUNT = 50, 1000

_PREFIXES = ("eq", "ne", "lt", "le", "gt", "ge", "sa", "eb", "ap")
_ID = re.compile(r"^[A-Za-z0-9\-.]{1,64}$")
_MODIFIERS = {
    Kind.TOKEN: frozenset({"", "not", "missing"}),
    Kind.STRING: frozenset({"", "exact", "contains", "missing"}),
    Kind.DATE: frozenset({"", "missing"}),
    Kind.REFERENCE: frozenset({"", "identifier", "missing"}),
}
INCLUDES = {
    "ImagingStudy": {"patient": "Patient", "subject": "Patient", "endpoint": "Endpoint"},
    "DiagnosticReport": {"patient": "Patient", "subject": "Patient", "result": "Observation"},
    "DocumentReference": {"patient": "Patient", "subject": "Patient", "related": "ImagingStudy"},
    "Observation": {
        "patient": "Patient",
        "subject": "Patient",
        "device": "Device",
        "has-member": "Observation",
        "part-of": "ImagingStudy",
    },
    "Provenance": {"target": "DiagnosticReport"},
    "Device": {},
    "Patient": {},
    "Endpoint": {},
}
"""resource type → reference parameter → the type of ours it leads to."""


@dataclass(frozen=True)
class ParsedSearch:
    """A search and how its answer is to look.

    Result  `used` the parameters that took part, for the self link; `ignored` those this server does not know;
            `include` and `revinclude` as (type, parameter); `summary` "", "true", "data", "count" or "text"
    """

    query: SearchQuery
    used: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    include: tuple[tuple[str, str], ...] = ()
    revinclude: tuple[tuple[str, str], ...] = ()
    total: bool = True
    only_count: bool = False
    elements: frozenset[str] = field(default_factory=frozenset)


def parse_search(resource_type: str, parameters: Sequence[tuple[str, str]]) -> ParsedSearch:
    """The search that a list of name and value pairs asks for. Raises InvalidQuery."""
    if len(parameters) > MAXIMUM_PARAMETERS:
        raise InvalidQuery(f"more than {MAXIMUM_PARAMETERS} search parameters")
    parser = _Parser(resource_type)
    for name, value in parameters:
        if len(value) > MAXIMUM_VALUE or len(name) > 200:
            raise InvalidQuery(f"{name[:60]}: longer than {MAXIMUM_VALUE} characters")
        if "\0" in value or "\0" in name:
            raise InvalidQuery(f"{name[:60]}: contains a NUL character".replace("\0", ""))
        parser.add(name, value)
    return parser.parsed()


class _Parser:
    def __init__(self, resource_type: str) -> None:
        self._type, self._known = resource_type, PARAMETERS[resource_type]
        self._criteria: list[Criterion] = []
        self._ids: list[tuple[str, ...]] = []
        self._updated: list[DateRange] = []
        self._used: list[tuple[str, str]] = []
        self._ignored: list[str] = []
        self._include: list[tuple[str, str]] = []
        self._revinclude: list[tuple[str, str]] = []
        self._sort, self._descending = "_lastUpdated", False
        self._count, self._total, self._only_count = DEFAULT_COUNT, True, False
        self._after: tuple[float | str, str] | None = None
        self._elements: frozenset[str] = frozenset()

    def add(self, name: str, value: str) -> None:
        special = _SPECIAL.get(name)
        if special is not None:
            special(self, value)
        elif not value:
            return
        elif not self._criterion(name, value):
            self._ignored.append(name)
            return
        if name != "_cursor":
            self._used.append((name, value))

    def parsed(self) -> ParsedSearch:
        query = SearchQuery(
            self._type,
            tuple(self._criteria),
            tuple(self._ids),
            tuple(self._updated),
            self._sort,
            self._descending,
            max(self._count, 1),
            self._after,
        )
        only_count = self._only_count or self._count == 0
        return ParsedSearch(
            query,
            tuple(self._used),
            tuple(self._ignored),
            tuple(self._include),
            tuple(self._revinclude),
            self._total or only_count,
            only_count,
            self._elements,
        )

    def _criterion(self, name: str, value: str) -> bool:
        base, _, rest = name.partition(".")
        if rest:
            return self._chained(base, rest, value)
        param, _, modifier = name.partition(":")
        known = self._known.get(param)
        if known is None:
            return False
        if known.kind is Kind.REFERENCE and modifier in known.targets:
            value = ",".join(v if "/" in v else f"{modifier}/{v}" for v in split(value, ","))
            modifier = ""
        self._criteria.append(criterion(known, modifier, value))
        return True

    def _chained(self, base: str, rest: str, value: str) -> bool:
        param, _, target = base.partition(":")
        known = self._known.get(param)
        if known is None or known.kind is not Kind.REFERENCE:
            return False
        targets = [t for t in known.targets if t in PARAMETERS and target in ("", t)]
        inner_name, _, modifier = rest.partition(":")
        inner = PARAMETERS[targets[0]].get(inner_name) if targets else None
        if inner is None or modifier in ("missing", "not"):
            raise InvalidQuery(f"{base}.{rest}: this chain is not supported")
        self._criteria.append(Criterion(known.name, known.kind, "", (), targets[0], criterion(inner, modifier, value)))
        return True

    def _set_count(self, value: str) -> None:
        if not value.isdecimal() or len(value) > 9:
            raise InvalidQuery("_count: allowed are whole numbers from 0")
        self._count = min(int(value), MAXIMUM_COUNT)

    def _set_id(self, value: str) -> None:
        ids = tuple(split(value, ","))
        if not all(_ID.match(i) for i in ids):
            raise InvalidQuery("_id: not an id (1 to 64 of A-Z a-z 0-9 - .)")
        self._ids.append(ids)

    def _set_updated(self, value: str) -> None:
        self._updated.append(_date("_lastUpdated", value))

    def _set_sort(self, value: str) -> None:
        name = value.removeprefix("-")
        dates = {p.name for p in self._known.values() if p.kind is Kind.DATE}
        if name not in dates | {"_lastUpdated", "_id"}:
            raise InvalidQuery(f"_sort: allowed are _lastUpdated, _id, {', '.join(sorted(dates))}, one of them")
        self._sort, self._descending = name, value.startswith("-")

    def _set_total(self, value: str) -> None:
        if value not in ("none", "estimate", "accurate"):
            raise InvalidQuery("_total: allowed are none, estimate, accurate")
        self._total = value != "none"

    def _set_summary(self, value: str) -> None:
        if value not in ("count", "false", "data"):
            raise InvalidQuery("_summary: allowed are count, data and false")
        self._only_count = value == "count"

    def _set_elements(self, value: str) -> None:
        self._elements |= {e.removeprefix(f"{self._type}.").split(".")[0] for e in split(value, ",") if e}

    def _set_format(self, value: str) -> None:
        if value not in ("json", "application/json", "application/fhir+json", "application/fhir json"):
            raise InvalidQuery("_format: allowed is json")

    def _add_include(self, value: str) -> None:
        self._include += _includes("_include", value, self._type, INCLUDES)

    def _add_revinclude(self, value: str) -> None:
        kind, _, param = value.partition(":")
        param = param.partition(":")[0]
        if INCLUDES.get(kind, {}).get(param) != self._type:
            raise InvalidQuery(
                "_revinclude: allowed are, of types that refer to this one, those that metadata lists as "
                "searchRevInclude"
            )
        self._revinclude.append((kind, param))

    def _set_cursor(self, value: str) -> None:
        try:
            sort, key, id_ = orjson.loads(base64.urlsafe_b64decode(value.encode("ascii")))
        except (ValueError, UnicodeEncodeError, binascii.Error, TypeError):
            raise InvalidQuery("_cursor: not a page of this server; start again without it") from None
        good_key = isinstance(key, str if self._sort == "_id" else float | int)
        if sort != ("-" if self._descending else "") + self._sort or not good_key or not isinstance(id_, str):
            raise InvalidQuery("_cursor: belongs to another order; start again without it")
        self._after = (key, id_)


_SPECIAL = {
    "_id": _Parser._set_id,
    "_lastUpdated": _Parser._set_updated,
    "_count": _Parser._set_count,
    "_sort": _Parser._set_sort,
    "_total": _Parser._set_total,
    "_summary": _Parser._set_summary,
    "_elements": _Parser._set_elements,
    "_format": _Parser._set_format,
    "_include": _Parser._add_include,
    "_revinclude": _Parser._add_revinclude,
    "_cursor": _Parser._set_cursor,
}


def cursor(query: SearchQuery, key: float | str, id_: str) -> str:
    """The opaque place after a row, for the next link."""
    sort = ("-" if query.descending else "") + query.sort
    return base64.urlsafe_b64encode(orjson.dumps([sort, key, id_])).decode("ascii")


def _includes(name: str, value: str, resource_type: str, known: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    if value == "*":
        return [(resource_type, param) for param in known[resource_type]]
    kind, _, param = value.partition(":")
    param = param.partition(":")[0]
    if kind != resource_type or (param not in known[resource_type] and param != "*"):
        allowed = ", ".join(f"{resource_type}:{p}" for p in known[resource_type]) or "none for this type"
        raise InvalidQuery(f"{name}: allowed: {allowed}")
    return [(kind, p) for p in known[resource_type]] if param == "*" else [(kind, param)]


def criterion(parameter: SearchParameter, modifier: str, value: str) -> Criterion:
    """One parameter with its alternatives. Raises InvalidQuery naming it."""
    name = parameter.name
    if modifier not in _MODIFIERS[parameter.kind]:
        raise InvalidQuery(f"{name}:{modifier}: this modifier is not supported for a {parameter.kind} parameter")
    if modifier == "missing":
        if value not in ("true", "false"):
            raise InvalidQuery(f"{name}:missing: allowed are true and false")
        return Criterion(name, parameter.kind, modifier, (value,))
    parts = split(value, ",")
    if len(parts) > MAXIMUM_ALTERNATIVES:
        raise InvalidQuery(f"{name}: more than {MAXIMUM_ALTERNATIVES} alternatives")
    values: list[Token | DateRange | str] = []
    for part in parts:
        if parameter.kind is Kind.TOKEN or modifier == "identifier":
            values += _tokens(name, part)
        elif parameter.kind is Kind.DATE:
            values.append(_date(name, unescaped(part)))
        elif parameter.kind is Kind.REFERENCE:
            values += _reference(parameter, unescaped(part))
        else:
            values.append(unescaped(part))
    return Criterion(name, parameter.kind, modifier, tuple(values))


def _tokens(name: str, part: str) -> list[Token]:
    pieces = split(part, "|")
    if len(pieces) > 2:
        raise InvalidQuery(f"{name}: a token has one |; write \\| for one inside a value")
    system = unescaped(pieces[0]) if len(pieces) == 2 else None
    code = unescaped(pieces[-1])
    if not code and not system:
        raise InvalidQuery(f"{name}: empty value")
    found = [Token(system, code)]
    if system == "urn:dicom:uid":  # both the bare UID and its urn:oid form are seen; both are meant
        bare = code.removeprefix("urn:oid:")
        found = [Token(system, bare), Token(system, f"urn:oid:{bare}")]
    return found


def _reference(parameter: SearchParameter, value: str) -> list[str]:
    if "/" in value:
        return ["/".join(value.rstrip("/").split("/")[-2:])]
    return [f"{target}/{value}" for target in parameter.targets]


def _date(name: str, value: str) -> DateRange:
    prefix = value[:2] if value[:2] in _PREFIXES else "eq"
    covered = date_range(value.removeprefix(prefix).replace(" ", "+"))
    if covered is None:
        raise InvalidQuery(
            f"{name}: not a date (YYYY, YYYY-MM, YYYY-MM-DD or a time with zone), with an optional prefix"
        )
    low, high = covered
    if prefix == "ap":
        low, high = low - 86_400, high + 86_400
    return DateRange(prefix, low, high)


def split(value: str, separator: str) -> list[str]:
    """The parts between unescaped separators, still escaped."""
    parts, current, escaped = [], "", False
    for character in value:
        if character == separator and not escaped:
            parts.append(current)
            current = ""
        else:
            current += character
        escaped = character == "\\" and not escaped
    return [*parts, current]


def unescaped(value: str) -> str:
    """A value with `\\,` `\\|` `\\$` `\\\\` made plain."""
    return re.sub(r"\\([\\,|$])", r"\1", value)
