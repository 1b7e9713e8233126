from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from bridge.translate.fhir_search import parse_search
from bridge.translate.search_match import matches
from tests.unit.test_fhir_api import Api, hits, only
from tests.unit.test_fhir_api import api as api

QUERIES = [
    query for pair in hits() for query in pair if ".name" not in query and not query.startswith(("patient.", "_last"))
]
MORE = [
    "started=ne2024", "started=le2024-03-01", "started=ap2024-03-01", "subject:missing=false", "identifier=urn:x%7C",
    "identifier=%7CA1&modality=CT", "modality=CT&modality=MR", "modality:not=CT,MR", "_id=1,2", "",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES + MORE)
def test_what_matches_is_what_a_search_finds(api: Api, query: str) -> None:
    parsed = parse_search("ImagingStudy", parse_qsl(query, keep_blank_values=True)).query
    found = set(api.ids(f"/ImagingStudy?{query}"))
    for resource in api.state.changes(0, 100, "ImagingStudy"):
        one = api.state.read_resource("ImagingStudy", resource.id)
        assert one is not None
        assert one.content is not None
        assert matches(parsed, one.content) == (one.id in found)


@pytest.mark.parametrize(
    "query",
    ["family=TES", "family:exact=Test", "family:exact=test", "name:contains=ES", "birthdate=ge1970", "gender=male"],
)
def test_texts_match_as_a_search_finds_them(api: Api, query: str) -> None:
    parsed = parse_search("Patient", parse_qsl(query)).query
    patient = only(api, "Patient")
    assert matches(parsed, patient.content) == (patient.id in api.ids(f"/Patient?{query}"))


def test_other_types_and_other_ids_do_not_match() -> None:
    content = {"resourceType": "ImagingStudy", "id": "a", "status": "available"}
    assert not matches(parse_search("Patient", []).query, content)
    assert not matches(parse_search("ImagingStudy", [("_id", "b")]).query, content)
    assert not matches(parse_search("ImagingStudy", [("patient.name", "b")]).query, content)
    assert matches(parse_search("ImagingStudy", [("_id", "b,a")]).query, content)
