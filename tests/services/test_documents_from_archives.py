"""Documents written by highdicom, stored in real archives: the same Observations and reports by every way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.documents.report_parts import report_id as of_document
from bridge.findings.report import report_id
from bridge.state import State
from tests import other_documents as others
from tests.builders import STUDY, a_translator, as_file
from tests.contract.test_imaging_source import KINDS, REAL, Archive
from tests.segmentations import a_segmentation
from tests.sr_documents import SEG_UID, SR_UID, a_document, an_image, as_bytes, planar, volumetric
from tests.unit.test_sync import Rig
from tests.validity import told_wrong_in_both

WITHOUT_OBJECTS = "real Orthanc by C-FIND"


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.service) for kind in REAL if kind != WITHOUT_OBJECTS])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    folder = tmp_path / "archive"
    folder.mkdir()
    with KINDS[request.param](folder) as archive:
        yield archive


def test_documents_of_known_numbers_come_out_as_exactly_these(archive: Archive, tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    rig = Rig(state)
    source = archive.source(state)
    rig.pipeline.sources = {source.name: source}
    rig.pipeline.translator = a_translator((source.name,))
    rig.pipeline.prepare()
    segmentation, report = a_segmentation(), a_document(planar(), volumetric())
    signed = others.a_readers_report(refers_to=[report], VerifyingObserverSequence=[others.verifying()])
    documents = [segmentation, report, signed, others.a_pdf(), others.key_objects(), others.a_dose_report()]
    archive.put([as_file(an_image()), *(as_bytes(one) for one in documents)])
    rig.run()
    assert state.items(parked=True) == []

    def of(kind: str) -> list[dict[str, Any]]:
        found = [r.content for r in state.study_resources(STUDY) if r.resource_type == kind and r.content is not None]
        assert [told for one in found for told in told_wrong_in_both(one)] == []
        return found

    numbers = sorted(o["valueQuantity"]["value"] for o in of("Observation") if "valueQuantity" in o)
    assert numbers == [2, 8.1, 8.5, 8.5, 12.5, 30.5, 500, 530.5]
    statuses = {r["id"]: r["status"] for r in of("DiagnosticReport")}
    assert statuses == {
        report_id(SR_UID): "final",
        report_id(SEG_UID): "preliminary",
        of_document(others.REPORT_UID): "final",
        of_document(others.PDF_UID): "preliminary",
    }
    assert len(of("DocumentReference")) == 5
    close = getattr(source, "close", None)
    if close is not None:
        close()
    state.close()
