"""How `bridge map` tells what became of attributes: tables, plain lines, JSON, or the resources themselves.

Everything is written study by study. Names of files and of attributes come from outside: they are never markup.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.map_files import NotUsed
from bridge.model import Resource
from bridge.translate.explanation import Explained, Level, Outcome, StudyExplanation

_STYLES = {
    Outcome.MAPPED: "green",
    Outcome.USED: "cyan",
    Outcome.TABLE: "blue",
    Outcome.REJECTED: "bold red",
    Outcome.IGNORED: "dim",
}
_SHOWN_FILES = 20
_Fields = tuple[str, str, str, str, str]


class Report(Protocol):
    """Takes one study after the other, then what was not used."""

    def study(self, study: StudyExplanation) -> None:
        """Tells of one study."""
        ...

    def end(self, not_used: NotUsed) -> None:
        """Tells of what is in no study."""
        ...


class TextReport:
    """For people: tables on a terminal; elsewhere one line for each attribute, with tabs between its fields."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def study(self, study: StudyExplanation) -> None:
        self._line(f"Study {study.study_instance_uid}: {study.instances} instances, {_counts(study)}")
        if study.refused:
            self._line(f"  rejected: {study.refused}")
        for rejection in study.result.rejected if study.result else ():
            self._line(f"  rejected: {rejection.error}")
        for level in Level:
            lines = [_fields(a, study.instances) for a in study.attributes if a.level is level]
            if not lines:
                continue
            if self._console.is_terminal:
                self._table(level.value, lines)
            else:
                for line in lines:
                    self._line("\t".join((level.value, *line)))
        if study.unlisted:
            self._line(f"  and {study.unlisted} occurrences of further attributes, not listed")

    def end(self, not_used: NotUsed) -> None:
        for title, files in (
            ("rejected", not_used.rejected),
            ("not used", not_used.skipped),
            ("not listed to its end", not_used.incomplete),
        ):
            for file, reason in files[:_SHOWN_FILES]:
                self._line(f"{title}: {file}: {reason}")
            if len(files) > _SHOWN_FILES:
                self._line(f"{title}: {len(files) - _SHOWN_FILES} more files: --json lists them")
        told = f"{not_used.files} files, {len(not_used.rejected)} rejected, {len(not_used.skipped)} not used"
        self._line(told + (f", {not_used.unlisted} more not listed" if not_used.unlisted else ""))

    def _table(self, level: str, lines: Sequence[_Fields]) -> None:
        table = Table(title=level, title_justify="left", expand=False)
        for name in ("attribute", "what became of it", "where, or why not", "instances", "values"):
            table.add_column(name, overflow="fold")
        for attribute, outcome, where, instances, values in lines:
            style = _STYLES[Outcome(outcome)]
            table.add_row(Text(attribute), Text(outcome, style), Text(where), instances, Text(values))
        self._console.print(table)

    def _line(self, text: str) -> None:
        self._console.file.write(f"{text}\n")


class JsonReport:
    """For programs: one JSON object, its studies written as they come."""

    def __init__(self, fhir: str) -> None:
        sys.stdout.write(f'{{"fhir": {json.dumps(fhir)}, "studies": [')
        self._between = ""

    def study(self, study: StudyExplanation) -> None:
        sys.stdout.write(self._between + "\n" + json.dumps(_study(study), ensure_ascii=False))
        self._between = ","

    def end(self, not_used: NotUsed) -> None:
        rest = {
            "files": not_used.files,
            "rejected": _files(not_used.rejected),
            "not_used": _files(not_used.skipped),
            "incomplete": _files(not_used.incomplete),
            "unlisted": not_used.unlisted,
        }
        sys.stdout.write("],\n" + json.dumps(rest, ensure_ascii=False)[1:] + "\n")


class BundleReport:
    """The resources as one FHIR Bundle (collection); what was rejected is told on stderr.

    Result  every resource once; a patient as the newest study has it, as the bridge shows it
    """

    def __init__(self, base: str) -> None:
        self._base, self._between = base, ""
        self._patients: dict[str, tuple[str, Resource]] = {}
        self._errors = TextReport(Console(stderr=True))
        sys.stdout.write('{"resourceType": "Bundle", "type": "collection"')

    def study(self, study: StudyExplanation) -> None:
        result = study.result
        if result is None:
            self._errors.end(NotUsed([(f"study {study.study_instance_uid}", study.refused)], files=study.instances))
            return
        for resource in result.resources:
            self._entry(resource)
        if result.patient is not None:
            before = self._patients.get(result.patient_key, ("", result.patient))
            if result.patient_rank >= before[0]:
                self._patients[result.patient_key] = result.patient_rank, result.patient

    def end(self, not_used: NotUsed) -> None:
        for _, (_, patient) in sorted(self._patients.items()):
            self._entry(patient)
        sys.stdout.write("]}\n" if self._between else "}\n")
        if not_used.rejected or not_used.skipped:
            self._errors.end(not_used)

    def _entry(self, resource: Resource) -> None:
        url = f"{self._base}/{resource['resourceType']}/{resource['id']}"
        entry = json.dumps({"fullUrl": url, "resource": resource}, ensure_ascii=False, indent=2)
        sys.stdout.write((self._between or ', "entry": [') + "\n" + entry)
        self._between = ","


def _counts(study: StudyExplanation) -> str:
    counts: Counter[Outcome] = Counter()
    for attribute in study.attributes:
        counts[attribute.outcome] += max(1, attribute.private)
    told = ", ".join(f"{counts[o]} {o.value}" for o in Outcome)
    return f"{counts.total()} attributes: {told}"


def _fields(attribute: Explained, instances: int) -> _Fields:
    where = "; ".join(_where(attribute))
    compared = attribute.differs is not None and attribute.instances > 1
    differing = "" if not compared else "differ" if attribute.differs else "same"
    values = " | ".join(attribute.values)
    return (
        ".".join(attribute.path),
        attribute.outcome.value,
        where,
        f"{attribute.instances}/{instances}",
        f"{differing}: {values}".removeprefix(": ") if values else differing,
    )


def _where(attribute: Explained) -> Iterator[str]:
    yield from (*attribute.elements, *attribute.columns)
    if attribute.private:
        yield f"{attribute.private} private attributes"
    elif attribute.reason:
        yield attribute.reason
    if attribute.vr in _SIZED:
        yield f"{attribute.length} bytes"


_SIZED = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})


def _study(study: StudyExplanation) -> dict[str, Any]:
    result = study.result
    return {
        "study_instance_uid": study.study_instance_uid,
        "instances": study.instances,
        "refused": study.refused,
        "rejected": [r.error for r in result.rejected] if result else [],
        "remarks": [{"keyword": r.keyword, "problem": r.problem, "count": r.count} for r in result.remarks]
        if result
        else [],
        "attributes": [_attribute(a) for a in study.attributes],
        "unlisted": study.unlisted,
    }


def _attribute(attribute: Explained) -> dict[str, Any]:
    told: dict[str, Any] = {
        "attribute": ".".join(attribute.path),
        "level": attribute.level.value,
        "outcome": attribute.outcome.value,
        "elements": attribute.elements,
        "columns": attribute.columns,
        "reason": attribute.reason,
        "vr": attribute.vr,
        "bytes": attribute.length,
        "instances": attribute.instances,
        "differs": attribute.differs,
    }
    if attribute.private:
        told["private"] = attribute.private
    if attribute.values:
        told["values"] = attribute.values
    return told


def _files(files: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"file": file, "reason": reason} for file, reason in files]
