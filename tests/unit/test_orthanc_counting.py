from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from bridge.errors import SourceUnavailable
from bridge.ports import KnowsTotal
from bridge.sources.orthanc import Orthanc
from tests.dicom_files import dicom_bytes
from tests.orthanc_fake import FakeOrthanc, connect

STUDY, OTHER = "1.2.3.1", "1.2.3.2"


@pytest.fixture
def fake() -> FakeOrthanc:
    return FakeOrthanc()


@pytest.fixture
def source(fake: FakeOrthanc) -> Iterator[Orthanc]:
    source = connect(fake)
    yield source
    source.close()


def test_counting_costs_the_same_whatever_the_archive_holds(fake: FakeOrthanc, source: Orthanc) -> None:
    studies = [f"1.2.5.{n}" for n in range(1, 101)]
    others = [f"1.2.6.{n}" for n in range(1, 901)]
    spent = []
    for more in (studies, others):
        for study in more:
            fake.put(study, instances=1)
        fake.requests.clear()
        assert source.count(studies) == dict.fromkeys(studies, 1)
        source.total()
        spent.append(len(fake.requests))
    assert spent == [3, 3]


def test_a_single_instance_that_is_gone_shows(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY, series=2, instances=3)
    fake.put(OTHER)
    fake.delete("Instance", f"{STUDY}.1.2")
    assert source.count([STUDY, OTHER]) == {STUDY: 5, OTHER: 2}
    fake.delete("Series", f"{STUDY}.2")
    fake.delete("Study", OTHER)
    assert source.count([STUDY, OTHER]) == {STUDY: 2, OTHER: 0}


def test_a_study_under_two_patient_ids_is_counted_whole(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.store(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", PatientID="A"))
    fake.store(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.2", PatientID="B"))
    assert source.count([STUDY]) == {STUDY: 2} == {STUDY: source.read(STUDY).held}


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5])
def test_a_limit_of_results_in_orthanc_makes_nothing_seem_gone(fake: FakeOrthanc, source: Orthanc, limit: int) -> None:
    for study in ("1.2.5.1", "1.2.5.2", "1.2.5.3"):
        fake.put(study, series=2, instances=2)
    fake.find_limit = limit
    assert source.count(["1.2.5.1", "1.2.5.2", "1.2.5.3"]) == dict.fromkeys(["1.2.5.1", "1.2.5.2", "1.2.5.3"], 4)


@pytest.mark.parametrize("uid", ["*", "1.2.3.?", "1.2.3.1\\1.2.3.2", ""])
def test_what_is_no_uid_is_not_searched_for(fake: FakeOrthanc, source: Orthanc, uid: str) -> None:
    fake.put(STUDY)
    fake.put(OTHER)
    assert source.count([uid]) == {uid: 0}
    assert "/tools/find" not in fake.requests


def test_the_total_is_that_of_all_instances(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY, series=2, instances=3)
    fake.put(OTHER)
    assert isinstance(source, KnowsTotal)
    assert source.total() == 8


@pytest.mark.parametrize("answer", [{}, [], {"CountInstances": "many"}, {"CountInstances": None}])
def test_a_total_that_is_none_is_not_known(fake: FakeOrthanc, source: Orthanc, answer: object) -> None:
    fake.edits["statistics"] = lambda _: answer
    assert source.total() is None


@pytest.mark.parametrize("answer", [{}, [{}], [{"ID": "../x"}], "text"])
def test_an_answer_that_is_no_list_of_studies_is_no_empty_archive(
    fake: FakeOrthanc, source: Orthanc, answer: object
) -> None:
    fake.put(STUDY)
    fake.faults["/tools/find"] = lambda _: httpx.Response(200, json=answer)
    with pytest.raises(SourceUnavailable, match="did not answer as Orthanc does"):
        source.count([STUDY])
