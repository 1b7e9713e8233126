"""An outcome document → a Definition. Strict, in the language of cohort questions; errors name the place. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bridge.errors import InvalidQuery
from cohort.codes import Terminology
from cohort.kinds import DERIVED, KINDS, LINKED
from cohort.outcome import Agreement, Definition, Evidence, Outcome, Precedence
from cohort.places import MAXIMUM_DAYS, Place
from cohort.question import Event, Test
from cohort.question_document import NAME, CriteriaReader, line_of, parameter_values, parameters_of
from cohort.returns import Columns

KEYS = ("name", "title", "description", "parameters", "finding", "score", "index", "within_days", "evidence",
        "precedence", "without_evidence", "reader")  # fmt: skip
NEEDED = ("name", "title", "description", "finding", "within_days", "evidence", "without_evidence")
FACTS = ("condition", "procedure", "observation", "report", "finding", "medication", "encounter", "implant")
"""Kinds of facts that can be evidence, besides `death`."""

READ = ("report", "finding")
"""Kinds of facts by which readers judge."""

EVENT = ("codes", "where", "having")
RULE = ("label", "outcome", "agrees", "before_days", "after_days", "of")
SCORE = ("threshold", "confidence_of", "positive")
DECIDES = (Outcome.CONFIRMED.value, Outcome.REFUTED.value, Outcome.CENSORED.value)
MAXIMUM_RULES = 50


def parse_outcome(
    document: Any, columns: Columns, codes: Terminology, given: Mapping[str, Any] | None = None
) -> Definition:
    """The definition in a loaded YAML or JSON document, with the values given (else the defaults) of its parameters.
    Raises InvalidQuery naming the place."""
    top = Place(document, "outcome", {}).object(*KEYS)
    for needed in NEEDED:
        if needed not in top:
            raise InvalidQuery(f"{needed}: missing")
    name, title, description = (replace(top[n], at=n) for n in ("name", "title", "description"))
    if not NAME.match(name.text()):
        name.wrong("lower-case letters, digits, - and _ are allowed")
    parameters = tuple(parameters_of(replace(top["parameters"], at="parameters"))) if "parameters" in top else ()
    values = parameter_values(parameters, given or {})

    def place(key: str) -> Place:
        return Place(top[key].given, key, values)

    reader = CriteriaReader(columns, codes, "finding", indexed=False)
    within = place("within_days").whole(0, MAXIMUM_DAYS)
    threshold, certain_of_answer, positive = _score(place("score"), reader) if "score" in top else (0.5, True, ())
    without, follow_up = _without(place("without_evidence"), within)
    return Definition(
        name=name.text(), title=line_of(title), description=line_of(description), parameters=parameters,
        finding=_predictions(place("finding"), reader),
        index=place("index").one_of(("study", "prediction")) if "index" in top else "study",
        threshold=threshold, certain_of_answer=certain_of_answer, positive=positive, within_days=within,
        evidence=_rules(place("evidence"), reader, within, (*FACTS, "death")),
        precedence=_precedence(place("precedence")) if "precedence" in top else Precedence.LISTED,
        without_evidence=without, follow_up_days=follow_up,
        reader=_rules(place("reader"), reader, None, READ) if "reader" in top else (),
        document=document,
    )  # fmt: skip


def _predictions(place: Place, reader: CriteriaReader) -> Event:
    found = place.object("codes", "where")
    if "codes" not in found:
        raise InvalidQuery(f"{place.at}.codes: missing")
    return reader.event("finding", found)


def _precedence(place: Place) -> Precedence:
    return Precedence(place.one_of(tuple(Precedence)))


def _score(place: Place, reader: CriteriaReader) -> tuple[float, bool, tuple[tuple[str, str], ...]]:
    found = place.object(*SCORE)
    threshold = 0.5
    if "threshold" in found:
        threshold = float(found["threshold"].number())
        if not 0 <= threshold <= 1:
            found["threshold"].wrong("a number from 0 to 1 is needed")
    of = found["confidence_of"].one_of(("answer", "finding")) if "confidence_of" in found else "answer"
    positive = reader.event("finding", {"codes": found["positive"]}).codes if "positive" in found else ()
    return threshold, of == "answer", positive or ()


def _without(place: Place, within: int) -> tuple[Outcome, int]:
    """What it means that nothing was found, and how long one must have looked."""
    found = place.object("outcome", "follow_up_days")
    if "outcome" not in found:
        raise InvalidQuery(f"{place.at}.outcome: missing")
    outcome = Outcome(found["outcome"].one_of(DECIDES))
    return outcome, found["follow_up_days"].whole(0, within) if "follow_up_days" in found else within


def _rules(place: Place, reader: CriteriaReader, within: int | None, kinds: tuple[str, ...]) -> tuple[Evidence, ...]:
    """Rules in the order of their precedence. Those of readers (`within` None) are not bound to days."""
    items = list(place.items())
    if len(items) > MAXIMUM_RULES:
        place.wrong(f"at most {MAXIMUM_RULES} are allowed")
    return tuple(_rule(item, reader, within, kinds) for item in items)


def _rule(place: Place, reader: CriteriaReader, within: int | None, kinds: tuple[str, ...]) -> Evidence:
    known = RULE if within is not None else ("label", "outcome")
    found = dict(place.object(*known, *kinds))
    facts = [k for k in found if k in kinds]
    if len(facts) != 1:
        place.wrong(f"exactly one of {', '.join(kinds)} is needed")
    kind, inner = facts[0], found.pop(facts[0])
    if ("outcome" in found) == ("agrees" in found):
        place.wrong("outcome or agrees is needed, one of them")
    decided = DECIDES if within is not None else DECIDES[:2]
    outcome = Outcome(found["outcome"].one_of(decided)) if "outcome" in found else Outcome.CONFIRMED
    event = None if kind == "death" else _event(kind, inner, found.get("of"), reader)
    if kind == "death" and inner.given is not None:
        inner.object()
    days = {n: found[n].whole() if n in found else None for n in ("before_days", "after_days")}
    after = days["after_days"] if days["after_days"] is not None else within or 0
    if within is not None and after > within:
        found["after_days"].wrong(f"at most within_days, {within}, are allowed")
    label = line_of(found["label"]) if "label" in found else kind
    agreement = _agreement(found["agrees"], kind, reader.columns) if "agrees" in found else None
    return Evidence(label, outcome, event, days["before_days"] or 0, after, agreement)


def _event(kind: str, place: Place, of: Place | None, reader: CriteriaReader) -> Event:
    """Facts of a kind. What a program asserted is no evidence of what a program asserted."""
    settings = dict(place.object(*EVENT))
    event = reader.event(kind, settings | ({"of": of} if of else {}))
    if kind not in LINKED:
        return event
    return replace(event, where=(*event.where, Test("asserted_by_ai", "not", (True,))))


def _agreement(place: Place, kind: str, columns: Columns) -> Agreement:
    found = place.object("column", "within")
    if set(found) != {"column", "within"}:
        place.wrong("column and within are needed")
    known = {} if kind == "death" else {**columns[KINDS[kind].table], **DERIVED.get(kind, {})}
    numbers = [c for c, t in known.items() if t == "DOUBLE"]
    within = float(found["within"].number())
    if within < 0:
        found["within"].wrong("a number of 0 or more is needed")
    return Agreement(found["column"].one_of(numbers), within)
