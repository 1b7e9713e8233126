"""Which studies a model is called for, and what of them it is called for. PURE."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bridge.model import Resource


@dataclass(frozen=True)
class Rule:
    """Every condition that is given must hold; those of series of one series. `sources` names sources that hold it."""

    modalities: frozenset[str]
    body_sites: frozenset[str] = frozenset()
    procedures: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    minimum_instances: int = 1


@dataclass(frozen=True)
class CalledSeries:
    """A series that a model is called for. `instances` SOP Instance UIDs; () where the study is too large to list."""

    series_instance_uid: str
    modality: str
    number_of_instances: int
    instances: tuple[str, ...]


def called_series(rule: Rule, imaging_study: Resource) -> tuple[CalledSeries, ...]:
    """The series of a study that match; () when the study does not.

    From    FHIR R4 ImagingStudy.series.modality, .bodySite, .numberOfInstances; ImagingStudy.procedureCode
    """
    if rule.procedures and not rule.procedures & set(_procedures(imaging_study)):
        return ()
    found = [_series(s) for s in imaging_study.get("series", ()) if _matches(rule, s)]
    return tuple(sorted(found, key=lambda s: s.series_instance_uid))


def content_digest(series: tuple[CalledSeries, ...]) -> str:
    """What is called for, in one word: other instances, another digest. What FHIR says besides does not count."""
    plain = [[s.series_instance_uid, s.number_of_instances, *s.instances] for s in series]
    return hashlib.sha256(orjson.dumps(plain)).hexdigest()


def _matches(rule: Rule, series: Mapping[str, Any]) -> bool:
    if series.get("modality", {}).get("code") not in rule.modalities:
        return False
    if series.get("numberOfInstances", 0) < rule.minimum_instances:
        return False
    site = series.get("bodySite", {})
    return not rule.body_sites or bool(rule.body_sites & {site.get("code"), site.get("display")})


def _procedures(imaging_study: Resource) -> Iterator[str]:
    for concept in imaging_study.get("procedureCode", ()):
        yield concept.get("text", "")
        yield from (
            coding[name] for coding in concept.get("coding", ()) for name in ("code", "display") if name in coding
        )


def _series(series: Mapping[str, Any]) -> CalledSeries:
    instances = sorted(i["uid"] for i in series.get("instance", ()))
    return CalledSeries(series["uid"], series["modality"]["code"], series.get("numberOfInstances", 0), tuple(instances))
