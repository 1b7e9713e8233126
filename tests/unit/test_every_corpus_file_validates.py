"""Whatever is made of real and synthetic DICOM is valid FHIR R4 and R5, by two independent validators."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bridge.errors import InvalidFile, RejectedInput
from bridge.model import StudyResult
from bridge.sources.part10 import read_headers
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers
from hospital import plan, write
from hospital.clinical import resources
from tests.builders import a_translator
from tests.cases.test_cases import CASES
from tests.shared import CORPUS, NO_CORPUS, corpus_files
from tests.validity import told_wrong, told_wrong_in_both

SITE = a_translator(
    order=("a",),
    endpoints={"a": "https://pacs.example.org/dicom-web"},
    zone=ZoneInfo("Europe/Vienna"),
    issuers=Issuers({}, "urn:oid:1.2.3.4", "urn:oid:1.2.3.5"),
)
BARE = a_translator(order=("a",))


def read(files: Iterable[Path]) -> list[Headers]:
    """The headers of every file that is DICOM and says which study it is of."""
    found = []
    for path in files:
        try:
            headers = read_headers(path)
        except InvalidFile:
            continue
        if headers.text("StudyInstanceUID"):
            found.append(headers)
    return found


def made(instances: Sequence[Headers]) -> list[StudyResult]:
    """The study of these instances, for a site that knows its issuers and for one that knows nothing."""
    found = []
    for translator in (SITE, BARE):
        try:
            found.append(translator.translate(instances[0].text("StudyInstanceUID"), {"a": instances}))
        except RejectedInput:
            continue
    return found


def judged(results: Iterable[StudyResult]) -> Mapping[str, int]:
    """How many resources of each type there are; fails with what is wrong with any of them."""
    count: Counter[str] = Counter()
    wrong: set[str] = set()
    for result in results:
        withdrawn = SITE.withdraw(result.study_instance_uid, result.resources)
        for resource in (*result.resources, *withdrawn.resources, *([result.patient] if result.patient else [])):
            count[resource["resourceType"]] += 1
            wrong.update(told_wrong_in_both(resource))
    assert not wrong, sorted(wrong)[:20]
    return count


def by_study(instances: Iterable[Headers]) -> list[list[Headers]]:
    studies: dict[str, list[Headers]] = defaultdict(list)
    for headers in instances:
        studies[headers.text("StudyInstanceUID")].append(headers)
    return list(studies.values())


@pytest.mark.skipif(not CORPUS.is_dir(), reason=NO_CORPUS)
def test_every_corpus_file_by_itself_and_every_study_of_the_corpus() -> None:
    instances = read(corpus_files())
    alone = [result for one in instances for result in made([one])]
    assert len(alone) > 700
    assert judged(alone)["Endpoint"] > 350
    assert judged(result for study in by_study(instances) for result in made(study))["Patient"] > 150


def test_every_study_of_the_synthetic_hospital(tmp_path: Path) -> None:
    hospital = plan(12, 7, date(2026, 11, 24))
    summary = write(hospital, tmp_path)
    studies = by_study(read((tmp_path / "dicom").rglob("*.dcm")))
    assert len(studies) == summary.studies
    count = judged(result for study in studies for result in made(study))
    assert (count["Patient"], count["Endpoint"]) == (2 * summary.studies, summary.studies)


def test_every_clinical_resource_of_the_synthetic_hospital() -> None:
    found = [r for made_ in resources(plan(60, 7, date(2026, 11, 24))).values() for r in made_]
    assert len({r["resourceType"] for r in found}) > 5
    assert not {problem for resource in found for problem in told_wrong(resource, "r4")}


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_mapping_case(name: str) -> None:
    case: dict[str, Any] = CASES[name]
    assert [problem for resource in case["fhir"].values() for problem in told_wrong_in_both(resource)] == []
