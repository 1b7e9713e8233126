"""Snapshots of one study from all its archives → one study: series, instances, agreed values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from bridge.errors import InvalidDicomValue
from bridge.model import Rejection, Remark
from bridge.translate.headers import Headers, Value, columns
from bridge.translate.uids import checked_uid


@dataclass(frozen=True)
class Series:
    """One series: its instances by SOP Instance UID; `sources` that hold it or a part of it."""

    series_instance_uid: str
    instances: tuple[Headers, ...]
    sources: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Study:
    """One study as all archives together hold it. Everything is sorted by UID.

    Result  `sources` that hold it, in order of authority; `first` the instances of the first of them: they say
            who the patient is; `rejected` instances that have no place; `remarks` what was left out.
    """

    study_instance_uid: str
    series: tuple[Series, ...]
    sources: tuple[str, ...]
    first: tuple[Headers, ...]
    rejected: tuple[Rejection, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def instances(self) -> tuple[Headers, ...]:
        return tuple(i for s in self.series for i in s.instances)


@dataclass
class Remarks:
    """Collects remarks while a study is translated; the same one is counted, not repeated."""

    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, keyword: str, problem: str) -> None:
        self._counts[keyword, problem] += 1

    def all(self) -> tuple[Remark, ...]:
        return tuple(Remark(keyword, problem, count) for (keyword, problem), count in sorted(self._counts.items()))


def merge(
    study_instance_uid: str, snapshots: Mapping[str, Sequence[Headers]], order: Sequence[str], remarks: Remarks
) -> Study:
    """The study from what each source holds. The first source in `order` that has an instance speaks for it.

    An instance without a valid SOP Instance, SOP Class or Series Instance UID is rejected; the rest goes on.
    """
    ranked = sorted(snapshots, key=lambda s: (order.index(s) if s in order else len(order), s))
    instances: dict[str, tuple[str, Headers]] = {}
    holders: dict[str, set[str]] = {}
    rejected: list[Rejection] = []
    first: tuple[Headers, ...] = ()
    for source in ranked:
        placed = _placed(study_instance_uid, source, snapshots[source], rejected, remarks)
        for sop_uid, found in placed.items():
            held = instances.setdefault(sop_uid, found)
            if held[0] != found[0]:
                remarks.add("SeriesInstanceUID", "differs between archives for the same SOP Instance UID")
            holders.setdefault(held[0], set()).add(source)
        first = first or tuple(placed[uid][1] for uid in sorted(placed, key=lambda u: (placed[u][0], u)))
    return Study(
        study_instance_uid,
        _series(instances, holders),
        tuple(s for s in ranked if snapshots[s]),
        first,
        tuple(rejected),
    )


def _placed(
    study_instance_uid: str, source: str, snapshot: Sequence[Headers], rejected: list[Rejection], remarks: Remarks
) -> dict[str, tuple[str, Headers]]:
    """SOP Instance UID → (Series Instance UID, headers) of one source; what has no place goes into `rejected`."""
    found: dict[str, tuple[str, Headers]] = {}
    for number, headers in enumerate(snapshot):
        try:
            series_uid, sop_uid = _place(study_instance_uid, headers)
        except InvalidDicomValue as error:
            name = headers.text("SOPInstanceUID") or f"#{number}"
            rejected.append(Rejection(f"{source}/{name}", str(error), {"source": source}))
            continue
        other = found.setdefault(sop_uid, (series_uid, headers))
        if other[1] is not headers:
            remarks.add("SOPInstanceUID", "occurs twice in one archive; one of the two was taken")
            found[sop_uid] = min(other, (series_uid, headers), key=lambda f: (f[0], repr(f[1].as_json())))
    return found


def _place(study_instance_uid: str, headers: Headers) -> tuple[str, str]:
    if headers.text("StudyInstanceUID") != study_instance_uid:
        raise InvalidDicomValue("StudyInstanceUID", "is not that of the study it was read for")
    sop_uid = checked_uid(headers.text("SOPInstanceUID"), "SOPInstanceUID")
    checked_uid(headers.text("SOPClassUID"), "SOPClassUID")
    return checked_uid(headers.text("SeriesInstanceUID"), "SeriesInstanceUID"), sop_uid


def _series(instances: Mapping[str, tuple[str, Headers]], holders: Mapping[str, set[str]]) -> tuple[Series, ...]:
    by_series: dict[str, list[tuple[str, Headers]]] = {}
    for sop_uid, (series_uid, headers) in instances.items():
        by_series.setdefault(series_uid, []).append((sop_uid, headers))
    return tuple(
        Series(uid, tuple(headers for _, headers in sorted(members, key=lambda m: m[0])), frozenset(holders[uid]))
        for uid, members in sorted(by_series.items())
    )


def agreed(instances: Sequence[Headers], keyword: str) -> tuple[Value, ...]:
    """The value most instances have (the first by UID among equals), () when none has one."""
    return most_common(columns(instances, (keyword,))[0])


def agreed_of(instances: Sequence[Headers], remarks: Remarks, *keywords: str) -> Headers:
    """The agreed values of several attributes, see `agreed`; disagreement is remarked."""
    found: dict[str, tuple[Value, ...]] = {}
    for keyword, column in zip(keywords, columns(instances, keywords), strict=True):
        if value := most_common(column, partial(remarks.add, keyword, DIFFERS)):
            found[keyword] = value
    return Headers(found)


def distinct(instances: Sequence[Headers], *keywords: str) -> list[Headers]:
    """The first instance of each combination of values that some attributes have, in the order of instances.

    Most instances have what the one before them has: what is made from these few is made once for many.
    """
    found = columns(instances, keywords)
    differing = [column for column in found if column and column.count(column[0]) < len(column)]
    if not differing:
        return list(instances[:1])
    kept: list[Headers] = []
    seen: set[tuple[object, ...]] = set()
    last: tuple[tuple[Value, ...], ...] | None = None
    for headers, values in zip(instances, zip(*differing, strict=True), strict=True):
        if values == last:
            continue
        last = values
        key = tuple(map(_comparable, values))
        if key not in seen:
            seen.add(key)
            kept.append(headers)
    return kept


DIFFERS = "differs among the instances; the most common value was taken"


def most_common(
    values: Iterable[tuple[Value, ...]], disagreement: Callable[[], None] | None = None
) -> tuple[Value, ...]:
    """The most common non-empty value, the first among equals; calls `disagreement` when there are several."""
    present = list(filter(None, values))
    if not present:
        return ()
    first = present[0]
    if present.count(first) == len(present):
        return first
    if disagreement is not None:
        disagreement()
    counts = Counter(map(_comparable, present))
    return max(present, key=lambda value: counts[_comparable(value)])


def _comparable(value: tuple[Value, ...]) -> tuple[object, ...]:
    return tuple(repr(v.as_json()) if isinstance(v, Headers) else v for v in value)
