from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files
from random import Random
from typing import Any

import jsonschema
import orjson
import pytest

from bridge.errors import InvalidQuery
from cohort.catalogue import column_types, outcome, outcomes, read_outcome
from cohort.dialects import duckdb as dialect
from cohort.outcome import Outcome
from cohort.outcome_document import FACTS
from cohort.outcome_oracle import rows
from cohort.outcome_rows import ROW, compile_outcomes
from cohort.outcome_schema import outcome_schema
from tests.random_questions import CODES, SYSTEM, TODAY, tables
from tests.random_questions import tests as random_tests
from tests.unit.test_oracle import connected, plain


def document(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": "nodule", "title": "Nodule", "description": "A nodule, by diagnosis.",
        "finding": {"codes": {"system": SYSTEM, "code": "a"}}, "within_days": 365,
        "evidence": [{"outcome": "confirmed", "condition": {"codes": {"system": SYSTEM, "code": "b"}}}],
        "without_evidence": {"outcome": "refuted"},
    }  # fmt: skip
    return {k: v for k, v in (made | changes).items() if v is not ...}


def rule(**changes: Any) -> dict[str, Any]:
    return document(
        evidence=[{k: v for k, v in ({"outcome": "confirmed", "death": {}} | changes).items() if v is not ...}]
    )


WRONG = [
    (document(finding={}), "finding.codes: missing"),
    (document(finding={"codes": {"list": "nobody"}}), "finding.codes.list: no such code list"),
    (document(evidence=...), "evidence: missing"),
    (document(evidence=[]), "evidence: a list is needed"),
    (document(cases=1), "outcome.cases: unknown"),
    (document(index="day"), "index: found 'day'; allowed: study, prediction"),
    (document(precedence="loudest"), "precedence: found"),
    (document(score={"threshold": 50}), "score.threshold: a number from 0 to 1"),
    (document(within_days=-1), "within_days: a whole number"),
    (document(without_evidence={"outcome": "pending"}), "without_evidence.outcome: found 'pending'"),
    (
        document(without_evidence={"outcome": "refuted", "follow_up_days": 366}),
        "follow_up_days: a whole number from 0 to 365",
    ),
    (rule(outcome=...), r"evidence\[0\]: outcome or agrees is needed"),
    (rule(death=...), r"evidence\[0\]: exactly one of condition"),
    (rule(condition={}), r"evidence\[0\]: exactly one of condition"),
    (rule(death={"of": 1}), r"evidence\[0\].death.of: unknown"),
    (rule(after_days=366), r"evidence\[0\].after_days: at most within_days, 365"),
    (rule(outcome=..., agrees={"column": "value_number", "within": 1}), r"agrees.column: found"),
    (rule(death=..., report={"times": 2}), r"evidence\[0\].report.times: unknown"),
    (document(reader=[{"outcome": "censored", "report": {}}]), r"reader\[0\].outcome: found"),
    (document(reader=[{"outcome": "confirmed", "condition": {}}]), r"reader\[0\].condition: unknown"),
]


@pytest.mark.parametrize(("wrong", "place"), WRONG)
def test_a_wrong_document_is_told_by_its_place(wrong: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidQuery, match=place):
        read_outcome(wrong)


@pytest.mark.parametrize("wrong", [[], "x", None, {"evidence": 3}, {"name": {}}])
def test_what_is_no_document_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidQuery):
        read_outcome(wrong)


def test_parameters_are_taken_and_unknown_ones_are_not() -> None:
    assert read_outcome(outcome("lung-nodule-cancer").document, {"within_days": "400"}).within_days == 400
    with pytest.raises(InvalidQuery, match="parameter days: unknown"):
        read_outcome(outcome("lung-nodule-cancer").document, {"days": "400"})
    with pytest.raises(InvalidQuery, match="no outcome 'cold'; known: fracture"):
        outcome("cold")


def test_the_json_schema_is_of_the_same_tables_that_documents_are_read_by() -> None:
    published = orjson.loads((files("mappings") / "outcomes" / "schema.json").read_bytes())
    assert published == outcome_schema(column_types())


def test_the_json_schema_allows_what_can_be_read_and_refuses_what_cannot() -> None:
    schema = jsonschema.Draft202012Validator(outcome_schema(column_types()))
    for ready in outcomes().values():
        schema.validate(ready.document)
    only_the_reader = (
        "no such code list",
        "a number from 0 to 1",
        "follow_up_days",
        "after_days",
        "outcome or agrees",
        "agrees.column",
    )
    for wrong, place in WRONG:
        if not any(words in place for words in only_the_reader):
            assert not schema.is_valid(wrong), place


NOW = datetime(2024, 2, 28, 12, tzinfo=UTC)


def random_tables(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Those of questions, with findings that are predictions: of two programs, some of them reviewed."""
    r, made = Random(seed), tables(seed)
    made["device"] += [
        {"device_id": f"m{n}", "model": model, "version": version}
        for n, (model, version) in enumerate([("net", "1"), ("net", "2"), (None, None)])
    ]
    for report in made["diagnostic_report"]:
        report["asserted_by_ai"] = r.random() < 0.3
    by_id: dict[str, dict[str, Any]] = {}
    for finding in made["imaging_finding"]:
        one = by_id.setdefault(finding["observation_id"], {
            "asserted_by_ai": r.random() < 0.8, "code_system": SYSTEM, "code": r.choice("ab"),
            "status": r.choice(["preliminary", "final", "cancelled", "entered-in-error"]),
            "asserted_by_clinician": r.random() < 0.3, "made_time": r.choice([NOW, None, None]),
            "value_code": r.choice(["52101004", "2667000", "x", None]),
            "made_value_code": r.choice(["52101004", "2667000", None]),
            "confidence_percent": r.choice([0.0, 50.0, 93.0, 101.0, None]),
            "confidence_fraction": r.choice([0.25, None]),
            "made_confidence_percent": r.choice([75.0, None]), "device_id": r.choice(["m0", "m1", "m2", "gone", None]),
        })  # fmt: skip
        finding |= one
    for study in made["imaging_study"]:
        made["dicom_study"].append(
            {
                "study_instance_uid": study["study_instance_uid"],
                "study_key": study["study_key"],
                "institution_name": r.choice(["N", None]),
            }
        )
    return made


def random_document(seed: int) -> dict[str, Any]:
    """A definition that can be read."""
    r = Random(seed)

    def fact() -> dict[str, Any]:
        kind = r.choice([*FACTS, "death"])
        if kind == "death":
            return {"death": {}}
        event: dict[str, Any] = {"where": random_tests(r, kind)} if r.random() < 0.4 else {}
        if r.random() < 0.3 and kind in ("condition", "observation", "implant"):
            event["codes"] = {"system": SYSTEM, "code": r.choice(CODES)[1]}
        if r.random() < 0.15:
            event["having"] = {"age": {"at_least_years": 44}}
        return {kind: event} | ({"of": "patient"} if kind in ("report", "finding") and r.random() < 0.4 else {})

    def one() -> dict[str, Any]:
        made = (
            {"before_days": r.choice([0, 1, 30]), "after_days": r.choice([0, 1, 30, 400])} if r.random() < 0.6 else {}
        )
        found = fact()
        number = {"observation": "value_number", "implant": "diameter_number"}.get(next(iter(found)))
        if number and r.random() < 0.5:
            return found | made | {"agrees": {"column": number, "within": r.choice([0, 0.5, 2])}}
        return found | made | {"outcome": r.choice(["confirmed", "refuted", "censored"])}

    reader = [{"outcome": r.choice(["confirmed", "refuted"]), "report": {}}, {"outcome": "confirmed", "finding": {}}]
    positive = {"positive": {"system": SYSTEM, "code": "x"}} if r.random() < 0.3 else {}
    return document(
        finding={"codes": {"system": SYSTEM, "code": ["a", "b"]}}, index=r.choice(["study", "prediction"]),
        within_days=400, evidence=[one() for _ in range(r.randrange(1, 5))],
        precedence=r.choice(["listed", "earliest", "latest"]),
        score={"threshold": r.choice([0.5, 0.75]), "confidence_of": r.choice(["answer", "finding"])} | positive,
        without_evidence={"outcome": r.choice(["refuted", "censored"]), "follow_up_days": r.choice([0, 1, 30])},
        reader=reader if r.random() < 0.5 else ...,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_duckdb_and_the_oracle_give_the_same_rows(seed: int) -> None:
    data = random_tables(seed)
    schema = jsonschema.Draft202012Validator(outcome_schema(column_types()))
    seen: set[Any] = set()
    with connected(data) as connection:
        for n in range(seed * 1000, seed * 1000 + 25):
            asked = random_document(n)
            schema.validate(orjson.loads(orjson.dumps(asked)))
            definition = read_outcome(asked)
            model = Random(n).choice([("", None), ("net", None), ("net", "2")])
            sql = dialect.sql(compile_outcomes(definition, TODAY, column_types(), *model))
            cursor = connection.execute(f"{sql} ORDER BY prediction_id")
            names = [d[0] for d in cursor.description or ()]
            assert set(ROW) - set(names) == {"evidence"}
            found = [{k: plain(v) for k, v in zip(names, row, strict=True)} for row in cursor.fetchall()]
            expected = [{k: plain(v) for k, v in row.items()} for row in rows(definition, data, TODAY, *model)]
            assert found == expected, (n, asked)
            seen |= {(row["outcome"], row["reader_agrees"]) for row in found}
    assert len(seen) > 1


def test_the_random_rows_have_every_outcome_and_every_judgement() -> None:
    data = [random_tables(seed) for seed in range(4)]
    definitions = [read_outcome(random_document(n)) for n in range(25)]
    found = [row for one in data for definition in definitions for row in rows(definition, one, TODAY)]
    assert {row["outcome"] for row in found} == set(Outcome)
    assert {row["reader_agrees"] for row in found} == {True, False, None}
