"""Documents that other programs wrote: each is taken or told why not, and what comes of it is valid."""

from __future__ import annotations

from collections import Counter
from zoneinfo import ZoneInfo

import pytest

from bridge.code_tables import code_tables
from bridge.documents.attached import with_documents
from bridge.documents.document import Context
from bridge.documents.objects import MOST_BYTES, is_document, kept_part
from bridge.errors import InvalidFile
from bridge.model import InstanceName, KeptDocument, StudyResult
from bridge.sources.part10 import read_headers
from bridge.translate.site import Site
from tests.builders import a_translator
from tests.shared import CORPUS, NO_CORPUS, corpus_files
from tests.validity import told_wrong_in_both

CONTEXT = Context(Site(code_tables(), ZoneInfo("Europe/Vienna")))


@pytest.mark.skipif(not CORPUS.is_dir(), reason=NO_CORPUS)
def test_every_document_of_the_corpus_is_taken_or_told_why_not() -> None:
    made: dict[str, Counter[str]] = {}
    refused: dict[str, str] = {}
    for path in corpus_files():
        try:
            headers = read_headers(path)
        except InvalidFile:
            continue
        if not is_document(headers.text("SOPClassUID")):
            continue
        uids = [headers.text(k) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")]
        name = InstanceName(*uids)
        try:
            kept = kept_part(path.read_bytes()[:MOST_BYTES], name)
        except InvalidFile as error:
            refused[path.name] = str(error)
            continue
        study = a_translator().translate(uids[0], {"a": [headers]}).resources[-1]
        document = KeptDocument("a", name, "digest", kept)
        result = with_documents(StudyResult(uids[0], "", "", None, (study,)), [document], [], [], CONTEXT)
        assert [told for one in result.resources[1:] for told in told_wrong_in_both(one)] == []
        made[path.name] = Counter(r["resourceType"] for r in result.resources[1:])
        if result.rejected:
            refused[path.name] = result.rejected[0].error
    assert made["test_sample-sr.dcm"] == {"DocumentReference": 1, "DiagnosticReport": 1, "Observation": 3}
    assert made["data_segmentations_liver.dcm"]["Observation"] == 1
    assert made["encapsulated_pdf.dcm"] == {"DocumentReference": 1, "DiagnosticReport": 1}
    assert made["gsps.dcm"] == made["test_files_test-SR.dcm"] == {"DocumentReference": 1}
    private = {"examples_data_structured_report.dcm", "data_sr-example_sr.dcm"}
    assert refused.keys() == private | {"testImages_deflate_report_dfl"}
    assert all("no code scheme with a code system" in refused[name] for name in private)
    assert made.keys() >= private
