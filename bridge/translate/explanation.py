"""What became of every attribute of a study, told from its translation and the table of attributes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from bridge.errors import RejectedInput
from bridge.model import StudyResult
from bridge.translate.effects import Effect, Effects
from bridge.translate.headers import WANTED, Headers
from bridge.translate.occurrences import Counted, Occurrences, Path
from bridge.translate.study import Translator


class Level(StrEnum):
    """What an attribute describes (PS3.3 A.1.2)."""

    PATIENT = "patient"
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


class Outcome(StrEnum):
    """What became of an attribute."""

    MAPPED = "mapped"
    """Its value is in a FHIR element."""
    USED = "used"
    """It decides something: an element, or how an object is read."""
    TABLE = "table"
    """It is in a column of the lake, not in FHIR."""
    REJECTED = "rejected"
    """It would be in FHIR, if its value could be used."""
    IGNORED = "ignored"


class Kind(StrEnum):
    """What a row of the table says of an attribute; `kept`: read and stored, but nothing carries it."""

    MAPPED = "mapped"
    USED = "used"
    KEPT = "kept"


@dataclass(frozen=True)
class AttributeRule:
    """A row of `mappings/codes/attributes.csv`: where an attribute goes (`element` "": nowhere in FHIR), and when.

    A row of a sequence holds for everything in it that has no row of its own.
    """

    path: Path
    element: str
    kind: Kind
    rule: str
    source: str


@dataclass(frozen=True)
class AttributeTable:
    """The reviewed table of attributes, and the level of those that do not describe an instance."""

    rules: Mapping[Path, tuple[AttributeRule, ...]]
    levels: Mapping[str, Level]

    def rules_of(self, path: Path) -> tuple[AttributeRule, ...]:
        """The rows of the attribute, else those of the innermost sequence around it that has some."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.rules:
                return self.rules[path[:length]]
        return ()

    def level_of(self, path: Path, tag: int) -> Level:
        """The level of the attribute that a path begins with; group 0010 describes the patient unless listed."""
        return self.levels.get(path[0], Level.PATIENT if tag >> 16 == 0x10 else Level.INSTANCE)


@dataclass(frozen=True)
class Explained:
    """One attribute. `reason` why it is not carried, or what to know; `differs` whether its values differ, None where
    they are not compared; `private` how many attributes it stands for."""

    path: Path
    level: Level
    outcome: Outcome
    elements: tuple[str, ...]
    columns: tuple[str, ...]
    reason: str
    vr: str
    length: int
    instances: int
    differs: bool | None
    values: tuple[str, ...]
    private: int


@dataclass(frozen=True)
class StudyExplanation:
    """One study. `refused` why it has no resources, or ""; `result` its translation, None when it is refused."""

    study_instance_uid: str
    instances: int
    attributes: tuple[Explained, ...]
    unlisted: int
    refused: str
    result: StudyResult | None

    @property
    def rejected(self) -> bool:
        """Whether the study, an instance or a value of it was rejected."""
        left_out = any(a.outcome is Outcome.REJECTED for a in self.attributes)
        return bool(self.refused) or left_out or (self.result is not None and bool(self.result.rejected))


def explain(
    study_instance_uid: str,
    instances: Sequence[Headers],
    occurrences: Occurrences,
    translator: Translator,
    table: AttributeTable,
) -> StudyExplanation:
    """What became of the attributes that were counted (`occurrences`) in the instances of one study."""
    refused, result = "", None
    try:
        result = translator.translate(study_instance_uid, {"files": instances})
    except RejectedInput as error:
        refused = str(error)
    telling = _Telling(Effects(translator, instances), table, result, refused)
    counted = occurrences.all()
    told = {path: telling.of(path, one) for path, one in counted.items()}
    inner: dict[Path, list[Path]] = {}
    for path in told:
        inner.setdefault(path[:-1], []).append(path)
    for path in sorted(inner, key=len, reverse=True):
        if path in told:
            told[path] = _with_inner(told[path], [told[one] for one in inner[path]])
    return StudyExplanation(
        study_instance_uid, occurrences.instances, tuple(told.values()), occurrences.unlisted, refused, result
    )


class _Telling:
    def __init__(self, effects: Effects, table: AttributeTable, result: StudyResult | None, refused: str) -> None:
        self._effects, self._table, self._refused = effects, table, refused
        self._remarks: dict[str, list[str]] = {}
        for remark in result.remarks if result else ():
            self._remarks.setdefault(remark.keyword, []).append(remark.problem)

    def of(self, path: Path, counted: Counted) -> Explained:
        found = Explained(
            path,
            self._table.level_of(path, counted.tags[0]),
            Outcome.IGNORED,
            (),
            (),
            "",
            counted.vr,
            counted.length,
            counted.instances,
            None if counted.digest is None else counted.differs,
            tuple(counted.values),
            len(counted.private),
        )
        if counted.private:
            return replace(found, reason="private")
        if not counted.length:
            return replace(found, reason="empty")
        rules = self._table.rules_of(path)
        by_reader = [rule for rule in rules if rule.path == path and rule.kind is Kind.USED and not rule.element]
        if by_reader:
            return replace(found, outcome=Outcome.USED, reason=by_reader[0].rule)
        if any(keyword not in WANTED for keyword in path):
            return replace(found, reason="not read")
        return self._kept(found, rules)

    def _kept(self, found: Explained, rules: Sequence[AttributeRule]) -> Explained:
        """An attribute that the bridge keeps."""
        if WANTED[found.path[-1]] == "SQ":
            return replace(found, reason=_rule(rules) or "nothing of it is carried")
        elements = dict.fromkeys(rule.element for rule in rules if rule.element)
        if self._refused and elements:
            return replace(found, outcome=Outcome.REJECTED, reason="the study is rejected")
        effect = self._effects.of(found.path, elements) if found.path in self._effects.paths else Effect()
        remarks = "; ".join(self._remarks.get(found.path[-1], ()))
        found = replace(found, elements=effect.elements, columns=effect.columns)
        if effect.elements:
            carried = any(r.kind is Kind.MAPPED and r.element in effect.elements for r in rules)
            return replace(found, outcome=Outcome.MAPPED if carried else Outcome.USED, reason=remarks)
        if effect.remarks:
            return replace(found, outcome=Outcome.REJECTED, reason=remarks)
        if effect.columns:
            return replace(found, outcome=Outcome.TABLE)
        return replace(found, reason=_not_needed(rules))


def _rule(rules: Sequence[AttributeRule]) -> str:
    return next((rule.rule for rule in rules if rule.rule and rule.kind is Kind.KEPT), "")


def _not_needed(rules: Sequence[AttributeRule]) -> str:
    if told := _rule(rules):
        return told
    conditions = dict.fromkeys(rule.rule for rule in rules if rule.rule)
    if conditions:
        return f"no effect here: {'; '.join(conditions)}"
    return "no effect here" if rules else "not carried at this place"


_WEIGHT = (Outcome.IGNORED, Outcome.REJECTED, Outcome.TABLE, Outcome.USED, Outcome.MAPPED)


def _with_inner(found: Explained, inner: Sequence[Explained]) -> Explained:
    """A sequence as what is in it: its outcome is the best of them."""
    best = max((one.outcome for one in inner), key=_WEIGHT.index, default=Outcome.IGNORED)
    if _WEIGHT.index(best) <= _WEIGHT.index(found.outcome):
        return found
    elements = tuple(dict.fromkeys(e for one in inner for e in one.elements))
    columns = tuple(dict.fromkeys(c for one in inner for c in one.columns))
    return replace(found, outcome=best, elements=elements, columns=columns, reason="")
