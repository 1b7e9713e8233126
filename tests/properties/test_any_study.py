"""Whatever an archive holds: a valid study or a clear refusal, the same whatever the order, and no value in words."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.code_tables import code_tables
from bridge.errors import RejectedInput
from bridge.translate.codes import UnmappedCodes
from bridge.translate.dicom_json import InstanceReader
from bridge.translate.headers import FLOAT_VRS, INTEGER_VRS, Headers
from bridge.translate.identifiers import AeTitle, Issuers
from bridge.translate.wanted import WANTED
from tests.builders import STUDY, a_translator, headers
from tests.validity import told_wrong_in_both

SECRET = "S3CRET"
TEXT = st.one_of(
    st.text(max_size=20),
    st.text(" \t\n\f\1\x85\u3000a1.^", max_size=6),
    st.just(SECRET),
    st.sampled_from(
        ["", " ", "20240101", "091500", "1.2.3", "A\\B", "+0100", "DCM", "113001", "CT1", "R", "ISO", STUDY]
    ),
)
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), TEXT)


def value(vr: str) -> st.SearchStrategy[Any]:
    if vr == "PN":
        return st.one_of(
            TEXT, st.fixed_dictionaries({}, optional={"Alphabetic": TEXT, "Ideographic": TEXT, "Phonetic": TEXT})
        )
    return NUMBERS if vr in INTEGER_VRS | FLOAT_VRS else TEXT


FLAT = [k for k, vr in WANTED.items() if vr != "SQ" and not k.endswith("InstanceUID")]
ATTRIBUTE = st.sampled_from(FLAT).flatmap(
    lambda k: st.tuples(st.just(k), st.lists(st.one_of(value(WANTED[k]), st.none()), max_size=3))
)


def item(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    flat = st.dictionaries(st.sampled_from(FLAT), st.lists(TEXT, max_size=2), max_size=4).map(
        lambda d: {k: {"vr": WANTED[k], "Value": v} for k, v in d.items()}
    )
    if depth == 0:
        return flat
    sequences = [k for k, vr in WANTED.items() if vr == "SQ"]
    nested = st.dictionaries(st.sampled_from(sequences), st.lists(item(depth - 1), max_size=2), max_size=2)
    return st.tuples(flat, nested).map(lambda p: p[0] | {k: {"vr": "SQ", "Value": v} for k, v in p[1].items()})


INSTANCE = st.tuples(st.lists(ATTRIBUTE, max_size=6), item(2), st.integers(1, 3), st.integers(1, 3))


def built(drawn: Any) -> Headers:
    attributes, more, series, instance = drawn
    changed = {k: {"vr": WANTED[k], "Value": v} for k, v in attributes} | more
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        changed.pop(keyword, None)
    return Headers({**headers(series=series, instance=instance), **Headers.from_dicom_json(changed)})


SYSTEM = "http://hospital.example/ids"
KNOWN = AeTitle(SYSTEM, SYSTEM, ZoneInfo("Europe/Vienna"))
WISHES: list[dict[str, Any]] = [
    {},
    {
        "zone": ZoneInfo("America/New_York"),
        "issuers": Issuers({"DCM": SYSTEM}, SYSTEM, SYSTEM, SYSTEM, SYSTEM, SYSTEM, {"CT1": KNOWN}, frozenset({"r"})),
        "tables": replace(code_tables(), unmapped=UnmappedCodes.LOCAL, local_system=SYSTEM),
        "dummy_birth_dates": frozenset({"20240101"}),
        "maximum_instances": 2,
    },
    {"tables": replace(code_tables(), unmapped=UnmappedCodes.LEAVE_OUT)},
]


@settings(max_examples=300, deadline=None)
@given(st.lists(INSTANCE, min_size=1, max_size=5), st.randoms(), st.sampled_from(WISHES))
def test_any_study_is_valid_or_refused_and_order_does_not_matter(
    drawn: list[Any], shuffle: random.Random, wishes: dict[str, Any]
) -> None:
    instances = list(map(built, drawn))
    translator = a_translator(**wishes)
    try:
        result = translator.translate(STUDY, {"a": instances})
    except RejectedInput as error:
        assert SECRET not in str(error)
        return
    assert not [p for r in (*result.resources, result.patient) if r is not None for p in told_wrong_in_both(r)]
    told = [r.error for r in result.rejected] + [r.problem for r in result.remarks]
    assert not [t for t in told if SECRET in t]
    first = orjson.dumps([result.patient, *result.resources])
    shuffle.shuffle(instances)
    again = translator.translate(STUDY, {"a": instances})
    assert orjson.dumps([again.patient, *again.resources]) == first
    assert again.remarks == result.remarks
    orjson.dumps(translator.rows(STUDY, {"a": instances}))


@settings(max_examples=200, deadline=None)
@given(item(3))
def test_headers_survive_being_written_down(plain: dict[str, Any]) -> None:
    found = Headers.from_dicom_json(plain)
    assert Headers.from_json(orjson.loads(orjson.dumps(found.as_json()))) == found


ALIKE = st.sampled_from([1, 1.0, True, 0, 0.0, -0.0, float("nan"), "1", "A", None, {"CodeValue": {"Value": [1]}}])
"""Some of them equal but not the same."""

ATTRIBUTES = st.one_of(st.fixed_dictionaries({"Value": st.lists(ALIKE, max_size=2)}), ALIKE)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["KVP", "ImageType", "ProcedureCodeSequence", "?"]), ATTRIBUTES)))
def test_instances_read_one_after_another_are_what_each_of_them_is_alone(listed: list[dict[str, Any]]) -> None:
    reader = InstanceReader()
    for one in listed:
        assert repr(reader.headers(one).as_json()) == repr(Headers.from_dicom_json(one).as_json())
