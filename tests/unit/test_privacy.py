"""An attacker sits at the desk: what can be learnt of few people from counts, differences, groups, errors, orders."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import InvalidQuery, NotAllowed
from cohort.answer import Answer
from cohort.api import CHARTS
from cohort.catalogue import question, questions, read_question
from cohort.desk import Caller, Desk
from cohort.lake import Generation, Lake
from cohort.privacy import Policy
from tests.policies import PATIENT

TODAY = date(2026, 11, 24)
ME = Caller("attacker", "cli")
K = 10
FEMALE: dict[str, Any] = {"patient": {"where": {"gender": "female"}}}


def resource(origin: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "resource", "origin": origin, "type": content["resourceType"], "id": content["id"], "revision": 1,
        "deleted": False, "resource": content,
    }  # fmt: skip


def people() -> Iterator[dict[str, Any]]:
    """57 women and 3 men; every one has a CT of two series; person 0 has 40 more studies; 4 women were born in 1931."""
    for n in range(60):
        born = "1931-05-01" if n < 4 else f"{1950 + n % 40}-01-01"
        gender = "male" if n >= 57 else "female"
        yield resource("clinical", {"resourceType": "Patient", "id": f"p{n}", "gender": gender, "birthDate": born})
        for study in range(41 if n == 0 else 1):
            uid = f"1.2.{n}.{study}"
            series = [{"uid": f"{uid}.{s}", "modality": {"code": "CT"}, "numberOfInstances": 1} for s in (1, 2)]
            yield resource(
                "clinical",
                {
                    "resourceType": "ImagingStudy", "id": f"s{n}-{study}", "status": "available",
                    "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}],
                    "subject": {"reference": f"Patient/p{n}"}, "started": "2024-03-01", "modality": [{"code": "CT"}],
                    "numberOfSeries": 2, "numberOfInstances": 2, "series": series,
                },
            )  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("privacy") / "lake")
    made.append(people())
    made.publish(datetime.now(UTC))
    return made


@pytest.fixture(scope="module")
def generation(lake: Lake) -> Generation:
    current = lake.current()
    assert current is not None
    return current


@pytest.fixture(scope="module")
def desk(lake: Lake) -> Desk:
    return Desk(lake.root, limits=PATIENT)


def counting(criteria: dict[str, Any], unit: str = "patient", group_by: tuple[str, ...] = ("gender",)) -> Any:
    return read_question(
        {
            "name": "q",
            "title": "T",
            "description": "D",
            "criteria": criteria,
            "return": {"unit": unit, "group_by": list(group_by)},
        }
    )


def listing(criteria: dict[str, Any], unit: str = "patient") -> Any:
    return read_question(
        {
            "name": "q",
            "title": "T",
            "description": "D",
            "criteria": criteria,
            "return": {"unit": unit, "columns": ["patient_id", "birth_date"]},
        }
    )


def asked(desk: Desk, generation: Generation, what: Any) -> Answer:
    return desk.ask(generation, what, {}, TODAY, ME)


def selected(desk: Desk, generation: Generation, sql: str) -> list[tuple[Any, ...]]:
    return list(desk.sql(generation, sql, ME).rows)


def numbers(answer: Answer) -> list[int]:
    return [value for row in answer.rows for value in row if isinstance(value, int)]


def test_a_group_of_few_is_left_out_and_the_others_are_rounded(desk: Desk, generation: Generation) -> None:
    answer = asked(desk, generation, counting({}))
    assert answer.rows == (("female", 50),)
    assert "fewer than 10 patients are left out" in answer.notes[0]


def test_it_says_the_same_whether_something_was_left_out_or_not(desk: Desk, generation: Generation) -> None:
    nothing_hidden = asked(desk, generation, counting(FEMALE))
    assert nothing_hidden.notes == asked(desk, generation, counting({})).notes


@pytest.mark.parametrize("people", [["other"], ["male"]], ids=["nobody", "three"])
def test_nobody_and_few_look_the_same(desk: Desk, generation: Generation, people: list[str]) -> None:
    criteria = {"patient": {"where": {"gender": people}}}
    assert asked(desk, generation, counting(criteria)).rows == ()
    assert asked(desk, generation, listing(criteria)).rows == ((None,),)
    condition = f"gender = '{people[0]}'"
    assert selected(desk, generation, f"SELECT count(DISTINCT patient_id) FROM patient WHERE {condition}") == []


def test_a_question_that_lists_people_counts_them(desk: Desk, generation: Generation) -> None:
    answer = asked(desk, generation, listing({}))
    assert [name for name, _ in answer.columns] == ["patients"]
    assert answer.rows == ((60,),)
    assert asked(desk, generation, listing(FEMALE)).rows == ((50,),)


def test_two_answers_subtracted_give_no_small_count(desk: Desk, generation: Generation) -> None:
    everybody = asked(desk, generation, listing({})).rows[0][0]
    women = asked(desk, generation, listing(FEMALE)).rows[0][0]
    assert (everybody - women) % K == 0
    by_sql = selected(desk, generation, "SELECT count(DISTINCT patient_id) FROM patient")[0][0]
    assert by_sql == everybody


def test_attrition_tells_no_small_step(desk: Desk, generation: Generation) -> None:
    steps = {"all": [FEMALE, {"age": {"at_least_years": 60}}, {"age": {"at_least_years": 90}}]}
    answer = desk.attrition(generation, listing(steps, "study"), {}, TODAY, ME)
    assert [row[3] for row in answer.rows] == [60, 50, 30, None]
    assert answer.rows[0][2] == 100  # of 100 studies, as coarse as their patients
    assert [row[2] is None for row in answer.rows] == [False, False, False, True]
    assert "fewer than 10 patients" in answer.notes[0]


def test_a_comparison_tells_no_small_value_and_no_order_of_hidden_ones(desk: Desk, generation: Generation) -> None:
    older = {"all": [FEMALE, {"age": {"at_least_years": 60}}]}
    answer = desk.compare(generation, listing(FEMALE), listing(older), TODAY, ME)
    rows = {(row[0], row[1]): row[2:] for row in answer.rows}
    assert rows["patients", "all"] == (50, 30)
    assert rows["in_both", "all"] == (30, 30)
    assert rows["gender", "female"] == (50, 30)
    shown = [n for row in answer.rows for n in row[2:] if n is not None]
    assert all(n >= K and n % K == 0 for n in shown)
    assert ("age_decade", "90") not in rows  # four women
    men = {"patient": {"where": {"gender": "male"}}}
    nothing = desk.compare(generation, listing(men), listing(men), TODAY, ME)
    assert [row[2:] for row in nothing.rows] == [(None, None), (None, None)]


FILLERS = [f"p{n}" for n in range(10, 19)]


@pytest.mark.parametrize(
    "criteria",
    [
        {"patient": {"where": {"patient_id": [*FILLERS, "p57"]}}},
        {"patient": {"where": {"patient_key": 1}}},
        {"not": {"patient": {"where": {"patient_id": "p57"}}}},
        {"any": [FEMALE, {"study": {"where": {"study_instance_uid": "1.2.57.0"}}}]},
        {"study": {"having": {"series": {"where": {"series_instance_uid": "1.2.57.0.1"}}}}},
        {"study": {"take": "first", "then": {"accession_number": "ACC1"}}},
        {"study": {"where": {"description": {"contains": "smith"}}}},
        {"report": {"where": {"text": {"contains": "smith"}}}},
    ],
)
@pytest.mark.parametrize("policy", [Policy(), Policy(line_level=True), Policy(identifiers="identifiers")])
def test_documents_of_peoples_own_cannot_test_what_singles_out(
    lake: Lake, generation: Generation, criteria: dict[str, Any], policy: Policy
) -> None:
    """Nine known women and one more: 10 would tell that the one is a woman, nothing that he is none."""
    desk = Desk(lake.root, policy, PATIENT)
    for what in (listing({"all": [FEMALE, criteria]}), counting(criteria)):
        with pytest.raises(NotAllowed, match="singles people out"):
            desk.ask(generation, what, {}, TODAY, ME)
        with pytest.raises(NotAllowed, match="singles people out"):
            desk.attrition(generation, what, {}, TODAY, ME)
        with pytest.raises(NotAllowed, match="singles people out"):
            desk.compare(generation, listing(FEMALE), what, TODAY, ME)


def test_that_something_is_there_may_be_asked_and_a_ready_question_has_its_words(
    desk: Desk, generation: Generation
) -> None:
    present = {"study": {"where": {"description": {"present": False}}}}
    assert asked(desk, generation, listing({"all": [FEMALE, present]})).rows == ((50,),)
    assert desk.ask(generation, question("reports-with-words"), {}, TODAY, ME).rows == ((None, None),)


def test_spark_answers_exactly_and_so_only_where_everything_may_be_seen(lake: Lake, generation: Generation) -> None:
    for policy in (Policy(), Policy(line_level=True), Policy(line_level=True, identifiers="identifiers")):
        with pytest.raises(NotAllowed, match="small_cells = 1"):
            Desk(lake.root, policy).ask(generation, listing(FEMALE), {}, TODAY, ME, engine="spark")
        with pytest.raises(NotAllowed, match="small_cells = 1"):
            Desk(lake.root, policy).attrition(generation, listing(FEMALE), {}, TODAY, ME, engine="spark")


def test_leaving_out_one_person_says_nothing_for_certain(desk: Desk, generation: Generation) -> None:
    """The tracker: the same question with and without the one person that a birth date and a sex single out."""
    one = "NOT (birth_date = '1954-01-01' AND gender = 'female')"
    base = "SELECT count(DISTINCT patient_id) FROM patient WHERE gender = 'female'"
    assert selected(desk, generation, base) == selected(desk, generation, f"{base} AND {one}") == [(50,)]


def test_a_person_with_many_studies_does_not_show_in_the_count_of_studies(desk: Desk, generation: Generation) -> None:
    """Exact, the two answers would differ by her 41 studies; the count of patients would differ by nothing seen."""
    with_her = asked(desk, generation, counting({}, "study", ("started_month",)))
    without = asked(desk, generation, counting({"age": {"younger_than_years": 95}}, "study", ("started_month",)))
    assert with_her.rows[0][1:] == (100, 60)
    assert without.rows[0][1:] == (50, 50)


@pytest.mark.parametrize("column", ["patient_id", "birth_date"])
def test_grouping_by_what_singles_out_shows_nobody(desk: Desk, generation: Generation, column: str) -> None:
    assert asked(desk, generation, counting({}, group_by=(column,))).rows == ()


def test_every_count_of_every_ready_question_and_plot_is_coarse(desk: Desk, generation: Generation) -> None:
    for name in questions():
        answer = asked(desk, generation, question(name))
        names = [c for c, _ in answer.columns]
        assert "patients" in names
        patients = [row[names.index("patients")] for row in answer.rows]
        assert all(n is None or (n >= K and n % K == 0) for n in patients), name
        assert not [n for n in names if n.endswith(("_uid", "_id")) or n == "identifiers"]
    for chart in CHARTS.values():
        answer = desk.chart(generation, chart, ME)
        at = [c for c, _ in answer.columns].index("patients")
        assert all(row[at] >= K and row[at] % K == 0 for row in answer.rows)


ORACLES = """
SELECT gender, count(DISTINCT patient_id) FROM patient GROUP BY gender HAVING count(DISTINCT patient_id) = 3
SELECT gender FROM patient GROUP BY gender
SELECT DISTINCT gender FROM patient
SELECT * FROM patient
SELECT count(*) FROM patient
SELECT count(*) FROM patient CROSS JOIN range(1000)
SELECT count(gender) FROM patient
SELECT count(DISTINCT birth_date) FROM patient
SELECT max(birth_date), count(DISTINCT patient_id) FROM patient
SELECT count(DISTINCT patient_id) - 1 FROM patient
SELECT count(DISTINCT patient_id) FILTER (WHERE gender = 'male') FROM patient
SELECT count(DISTINCT CASE WHEN gender = 'male' THEN patient_id END) FROM patient
SELECT count(DISTINCT patient_id || gender) FROM patient
SELECT count(DISTINCT patient_id) OVER () FROM patient
SELECT count(DISTINCT patient_id), (SELECT count(*) FROM patient WHERE gender = 'male') FROM patient
SELECT (SELECT max(birth_date) FROM patient WHERE gender = 'male') b, count(DISTINCT patient_id) FROM patient GROUP BY 1
SELECT count(DISTINCT patient_id) FROM patient WHERE EXISTS (SELECT 1 FROM patient q WHERE q.patient_id = 'p57')
SELECT count(DISTINCT p.patient_id) FROM patient p, patient q WHERE q.gender = 'male'
SELECT count(DISTINCT p.patient_id) FROM patient p JOIN patient q ON q.birth_date = '1931-05-01'
SELECT count(DISTINCT p.patient_id) FROM patient p LEFT JOIN patient q ON q.gender = 'male' WHERE q.gender IS NULL
SELECT count(DISTINCT p.patient_id) FROM patient p JOIN patient q USING (gender)
SELECT count(DISTINCT p.patient_id) FROM patient p JOIN patient q(gender, patient_id, a, b, c, d) USING (patient_id)
SELECT count(DISTINCT p.patient_id) FROM patient p NATURAL JOIN patient q
SELECT count(DISTINCT p.patient_id) FROM patient p SEMI JOIN patient q USING (patient_id)
SELECT count(DISTINCT p.patient_id) FROM patient p POSITIONAL JOIN patient q
SELECT count(DISTINCT patient_id) FROM (SELECT * FROM patient LIMIT 11)
SELECT count(DISTINCT patient_id) FROM patient TABLESAMPLE 50%
WITH a AS (SELECT * FROM patient) SELECT count(DISTINCT patient_id) FROM a
SELECT count(DISTINCT patient_id) FROM patient UNION ALL SELECT count(DISTINCT patient_id) FROM patient
SELECT count(DISTINCT patient_id) FROM patient WHERE patient_id <> 'p57'
SELECT count(DISTINCT patient_id) FROM patient JOIN imaging_study USING (patient_id) WHERE study_instance_uid > '1.2.5'
SELECT count(DISTINCT patient_id) FROM diagnostic_report WHERE contains(report_text, 'Smith')
SELECT patient_id, count(DISTINCT patient_id) FROM patient GROUP BY 1
SELECT p, count(DISTINCT patient_id) FROM patient p GROUP BY 1
SELECT gender, count(DISTINCT patient_id) FROM patient GROUP BY gender, birth_date
SELECT gender, count(DISTINCT patient_id) FROM patient GROUP BY ROLLUP (gender)
SELECT gender, count(DISTINCT patient_id) FROM patient GROUP BY gender ORDER BY max(birth_date)
SELECT gender, count(DISTINCT patient_id) FROM patient GROUP BY gender LIMIT (SELECT count(*) FROM patient)
SELECT gender, count(DISTINCT patient_id) FROM patient GROUP BY gender QUALIFY row_number() OVER () = 1
SELECT count(DISTINCT patient_id) FROM patient WHERE gender = 5
SELECT count(DISTINCT patient_id) FROM patient WHERE gender IN (5)
SELECT count(DISTINCT patient_id) FROM patient WHERE gender = DATE '2024-01-01'
SELECT count(DISTINCT patient_id) FROM patient WHERE gender::INTEGER = 1
SELECT count(DISTINCT patient_id) FROM patient WHERE gender
SELECT count(DISTINCT patient_id) FROM patient WHERE ln(year(birth_date) - 1931) > 0
SELECT count(DISTINCT patient_id) FROM patient WHERE year(birth_date) * 9223372036854775807 > 0
SELECT count(DISTINCT patient_id) FROM patient WHERE birth_date + INTERVAL 9999999 YEAR > current_date
SELECT count(DISTINCT patient_id) FROM imaging_study WHERE number_of_series > 1.0000000000000000000000000000000000001
SELECT count(DISTINCT patient_id) FROM patient WHERE CASE WHEN gender = 'male' THEN error('x') ELSE true END
SELECT count(DISTINCT patient_id) FROM patient WHERE strptime(gender, '%Y') IS NULL
SELECT count(DISTINCT patient_id) FROM patient WHERE gender SIMILAR TO '('
SELECT count(DISTINCT patient_id) FROM patient WHERE date_trunc(gender, birth_date) IS NULL
SELECT count(DISTINCT patient_id) FROM patient WHERE gender LIKE birth_date
SELECT count(DISTINCT patient_id) FROM patient WHERE gender LIKE 'x!' ESCAPE '!'
""".strip().splitlines()


@pytest.mark.parametrize("sql", ORACLES)
def test_counts_cannot_be_made_to_speak_of_one_person(desk: Desk, generation: Generation, sql: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        desk.sql(generation, sql, ME)
    assert "1931" not in str(caught.value).replace(sql, "")


COUNTS = {
    "SELECT gender, count(DISTINCT patient_id) FROM patient GROUP BY gender": [("female", 50)],
    "SELECT count(DISTINCT p.patient_id) AS n FROM patient p JOIN imaging_study s USING (patient_id) "
    "JOIN imaging_study_modality m USING (study_instance_uid) WHERE m.modality IN ('CT', 'MR')": [(60,)],
    r"SELECT count(DISTINCT patient_id) FROM imaging_study WHERE contains(modalities_in_study, '\CT\') "
    r"OR contains(modalities_in_study, '\MR\')": [(60,)],
    "SELECT (date_sub('year', birth_date, DATE '2026-11-24') // 10) * 10 AS age, count(DISTINCT patient_id) AS n "
    "FROM patient WHERE birth_date <= DATE '2026-11-24' - INTERVAL 35 YEAR GROUP BY 1 ORDER BY n DESC, age LIMIT 3":
    [(60, 20), (40, 10), (50, 10)],
    "SELECT CASE WHEN birth_date < '1970-01-01' THEN 'old' ELSE 'young' END AS k, count(DISTINCT patient_id) "
    "FROM patient WHERE lower(gender) LIKE 'fe%' AND birth_date IS NOT NULL GROUP BY k": [("old", 30), ("young", 20)],
    "SELECT date_trunc('month', started_date)::DATE AS m, count(DISTINCT patient_id) FROM imaging_study GROUP BY ALL":
    [("2024-03-01", 60)],
    "SELECT count(DISTINCT patient_id) FROM imaging_study LEFT JOIN diagnostic_report_study d "
    "USING (study_instance_uid) WHERE d.diagnostic_report_id IS NULL AND number_of_series >= 1.5": [(60,)],
}  # fmt: skip


@pytest.mark.parametrize("sql", COUNTS)
def test_ordinary_counts_are_answered(desk: Desk, generation: Generation, sql: str) -> None:
    assert selected(desk, generation, sql) == COUNTS[sql]


def test_order_and_limit_see_only_what_is_shown(desk: Desk, generation: Generation) -> None:
    """Ordered before it is cut, the smallest group would be the one of three men."""
    sql = "SELECT gender, count(DISTINCT patient_id) AS n FROM patient GROUP BY gender ORDER BY n LIMIT 1"
    assert selected(desk, generation, sql) == [("female", 50)]
    assert selected(desk, generation, f"{sql} OFFSET 1") == []


def test_what_is_refused_is_told_as_such_and_a_mistake_as_a_mistake(desk: Desk, generation: Generation) -> None:
    with pytest.raises(NotAllowed, match="where rows may not be seen"):
        desk.sql(generation, "SELECT * FROM patient", ME)
    with pytest.raises(InvalidQuery, match="syntax error") as caught:
        desk.sql(generation, "SELEKT", ME)
    assert not isinstance(caught.value, NotAllowed)


def test_tables_do_not_tell_their_exact_size() -> None:
    assert [Policy().table_rows(n) for n in (0, 9, 63)] == [0, 0, 60]
    assert Policy(line_level=True).table_rows(63) == 63


def test_keys_are_as_good_as_ids_for_counting_and_as_secret(desk: Desk, generation: Generation) -> None:
    joined = "FROM patient p JOIN imaging_study s USING (patient_key)"
    by_key = selected(desk, generation, f"SELECT count(DISTINCT s.patient_key) {joined}")
    assert by_key == selected(
        desk, generation, "SELECT count(DISTINCT patient_id) FROM patient JOIN imaging_study USING (patient_id)"
    )
    assert by_key[0][0] % 10 == 0 < by_key[0][0]
    for refused in (
        "SELECT patient_key, count(DISTINCT patient_id) FROM patient GROUP BY 1",
        f"SELECT count(DISTINCT patient_id) {joined} WHERE s.study_key > 1",
        "SELECT count(DISTINCT study_key) FROM imaging_study",
        "SELECT max(patient_key), count(DISTINCT patient_id) FROM patient",
    ):
        with pytest.raises(NotAllowed):
            desk.sql(generation, refused, ME)


@given(st.lists(st.integers(0, 45), min_size=1, max_size=4), st.integers(2, 12))
def test_totals_and_groups_leave_a_hidden_group_undetermined(groups: list[int], k: int) -> None:
    """All counts that an attacker can have of a table: every group and its total. What fits them, for a hidden group,
    is one value only where every group has as many as it could have."""
    policy = Policy(small_cells=k)
    seen, total = [policy.count(n) for n in groups], policy.count(sum(groups))
    hidden = [i for i, n in enumerate(seen) if n is None]
    if not hidden:
        return
    ranges = [range(n, n + k) if n is not None else range(k) for n in seen]
    fitting = {
        values[hidden[0]] for values in itertools.product(*(_thinned(r) for r in ranges))
        if policy.count(sum(values)) == total
    }  # fmt: skip
    assert len(fitting) > 1 or total == sum(max(r) for r in ranges)


def _thinned(values: range) -> list[int]:
    """Ends and middle: enough to show that more than one value fits."""
    return sorted({*values[:3], *values[-3:], values[len(values) // 2]})


@given(st.integers(0, 400), st.integers(0, 400), st.integers(2, 50))
def test_a_difference_of_two_counts_never_is_a_count_under_the_threshold(a: int, b: int, k: int) -> None:
    policy = Policy(small_cells=k)
    first, second = policy.count(a), policy.count(b)
    if first is not None and second is not None:
        assert (first - second) % k == 0
        assert abs((first - second) - (a - b)) < k


@given(st.integers(0, 5000), st.integers(1, 400), st.integers(1, 50))
def test_facts_are_as_coarse_as_their_patients(facts: int, patients: int, k: int) -> None:
    policy = Policy(small_cells=k)
    shown = policy.facts(facts, patients)
    if patients < k:
        assert shown is None
    else:
        assert shown is not None
        assert 0 <= facts - shown < policy.step(facts, patients)
