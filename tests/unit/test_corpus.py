"""Every file of a corpus of real DICOM goes through the folder source and the translation without a crash."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.patient import Patient

from bridge.model import AdministrativeGender, ImagingStudyStatus
from tests.corpus import Corpus
from tests.shared import CORPUS, NO_CORPUS, corpus_files

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=NO_CORPUS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    made = Corpus(tmp_path_factory.mktemp("corpus"))
    yield made
    made.state.close()


def test_every_file_is_in_a_study_or_parked_with_a_reason(corpus: Corpus) -> None:
    files = {str(p.relative_to(CORPUS)) for p in CORPUS.rglob("*") if p.is_file()}
    assert set(corpus.state.known_files("corpus")) == files
    parked = {i.key: i for i in corpus.state.items(parked=True, limit=10_000)}
    assert all(i.error and "Traceback" not in i.error and "unexpected" not in i.error for i in parked.values())
    studies = corpus.state.file_studies("corpus", sorted(files))
    held = corpus.instances()
    for path in sorted(files):
        study = studies[path]
        in_study = any(f"{study}/corpus/{path}" == key for key in parked) or study in parked
        if study and not in_study:
            from bridge.sources.part10 import read_headers

            uid = read_headers(CORPUS / path).text("SOPInstanceUID")
            assert uid in held or f"{study}/corpus/{uid}" in parked, path
        elif not study:
            assert path in parked or "DICOMDIR" in path, path
    assert len(held) > 250


def test_every_study_is_valid_and_keeps_the_required_bindings(corpus: Corpus) -> None:
    studies = corpus.studies()
    assert len(studies) > 80
    for study in studies:
        ImagingStudy.model_validate(study)
        assert study["status"] in set(ImagingStudyStatus)
    for state in corpus.sink.newest().values():
        for stored in state.of_type("Patient"):
            assert stored.content is not None
            Patient.model_validate(stored.content)
            assert stored.content.get("gender") in {None, *AdministrativeGender}


def test_reading_it_all_again_makes_no_new_version(corpus: Corpus) -> None:
    before = len(corpus.sink.states)
    for uid, _ in corpus.state.indexed_studies("corpus"):
        corpus.state.mark_studies("corpus", [uid], corpus.now)
    corpus.drain()
    assert len(corpus.sink.states) == before


def test_the_corpus_is_there() -> None:
    assert len(corpus_files()) > 400
