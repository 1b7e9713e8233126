"""Whatever steps come, in whatever order and number: the same announced study, valid, and no value in words."""

from __future__ import annotations

import random
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import RejectedInput
from bridge.translate.headers import Headers
from bridge.translate.procedure_step import ProcedureStep, ProcedureStepStatus
from tests.builders import STUDY, a_translator, headers
from tests.properties.test_any_study import ATTRIBUTE, SECRET, item
from tests.unit.test_procedure_step import a_step
from tests.validity import told_wrong_in_both

STEP = st.tuples(
    st.sampled_from(list(ProcedureStepStatus)), st.integers(1, 4), st.lists(ATTRIBUTE, max_size=5), item(1)
)


def built(drawn: Any) -> ProcedureStep:
    status, number, attributes, more = drawn
    said = Headers.from_dicom_json({k: {"Value": v} for k, v in attributes})
    scheduled = Headers({**Headers.from_dicom_json(more), "StudyInstanceUID": (STUDY,), "AccessionNumber": ("A1",)})
    sequence = {"ScheduledStepAttributesSequence": (scheduled,)}
    return ProcedureStep(f"1.2.3.{number}", status, Headers({**a_step().headers, **said, **sequence}))


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=4), st.randoms())
def test_any_steps_announce_a_valid_study_or_are_refused(drawn: list[Any], shuffle: random.Random) -> None:
    steps = list({s.sop_instance_uid: s for s in map(built, drawn)}.values())
    translator = a_translator()
    try:
        result = translator.without_instances(STUDY, (), {"a": steps})
    except RejectedInput as error:
        assert SECRET not in str(error)
        return
    assert not [p for r in (*result.resources, result.patient) if r is not None for p in told_wrong_in_both(r)]
    assert not [r for r in result.remarks if SECRET in r.problem]
    first = orjson.dumps([result.patient, *result.resources])
    shuffle.shuffle(steps)
    again = translator.without_instances(STUDY, (), {"a": steps})
    assert orjson.dumps([again.patient, *again.resources]) == first


@settings(max_examples=50, deadline=None)
@given(st.lists(STEP, max_size=4))
def test_steps_never_change_what_is_said_of_a_study_that_is_held(drawn: list[Any]) -> None:
    translator, instances = a_translator(), {"a": [headers()]}
    steps = {"b": [built(d) for d in drawn]}
    assert (
        translator.translate(STUDY, instances, steps=steps).resources
        == translator.translate(STUDY, instances).resources
    )
