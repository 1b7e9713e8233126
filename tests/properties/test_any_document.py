"""Damage anywhere in a document: it is refused, or what comes of it is valid; nothing else ever happens."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.code_tables import code_tables
from bridge.documents.attached import with_documents
from bridge.documents.document import Context
from bridge.documents.objects import kept_part
from bridge.errors import InvalidFile
from bridge.model import InstanceName, KeptDocument, StudyResult
from bridge.translate.headers import Headers
from bridge.translate.site import Site
from tests import other_documents as others
from tests.builders import STUDY, a_translator
from tests.segmentations import a_segmentation
from tests.sr_documents import a_document, an_evaluation, an_image, as_bytes, planar, volumetric
from tests.validity import told_wrong

CONTEXT = Context(Site(code_tables()))


@cache
def documents() -> tuple[tuple[InstanceName, bytes], ...]:
    signed = [others.verifying()]
    made = [
        a_document(planar(qualitative_evaluations=[an_evaluation()]), volumetric()),
        a_segmentation(),
        others.a_readers_report(VerifyingObserverSequence=signed),
        others.a_pdf(VerificationFlag="VERIFIED", VerifyingObserverSequence=signed),
        others.key_objects(),
        others.presentation_state(),
        others.a_dose_report(),
    ]
    names = [InstanceName(STUDY, d.SeriesInstanceUID, d.SOPInstanceUID, d.SOPClassUID) for d in made]
    return tuple(zip(names, map(as_bytes, made), strict=True))


@cache
def study() -> dict[str, object]:
    held = [Headers.from_dataset(an_image())]
    held += [
        Headers(
            {
                "StudyInstanceUID": (STUDY,),
                "SeriesInstanceUID": (name.series_instance_uid,),
                "SOPInstanceUID": (name.sop_instance_uid,),
                "SOPClassUID": (name.sop_class_uid,),
                "PatientID": ("P1",),
                "Modality": ("SR",),
            }
        )
        for name, _ in documents()
    ]
    return a_translator().translate(STUDY, {"a": held}).resources[-1]


@settings(deadline=None, max_examples=150)
@given(
    which=st.integers(0, 6),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.one_of(st.none(), st.floats(0.1, 1)),
)
def test_a_damaged_document_is_refused_or_makes_valid_resources(
    which: int, changes: list[tuple[float, int]], cut: float | None
) -> None:
    name, content = documents()[which]
    damaged = bytearray(content)
    for place, value in changes:
        damaged[int(place * (len(damaged) - 1))] = value
    if cut is not None:
        damaged = damaged[: int(len(damaged) * cut)]
    try:
        kept = kept_part(bytes(damaged), name)
    except InvalidFile:
        return
    document = KeptDocument("a", name, "digest", kept)
    result = with_documents(StudyResult(STUDY, "", "", None, (study(),)), [document], [], [], CONTEXT)
    assert [told for one in result.resources[1:] for told in told_wrong(one, "r4")] == []
