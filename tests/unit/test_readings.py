from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bridge.errors import InvalidQuery, NotAllowed
from cohort.catalogue import outcome
from cohort.cli import app
from cohort.desk import Caller, Desk
from cohort.feedback import Wanted
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.outcome_rows import ROW
from cohort.privacy import Policy, Readers
from tests.outcome_cases import all_lines
from tests.policies import EVERYTHING, EVERYTHING_TOML

ANNA, BEN, CHIEF = (Caller(who, "cli") for who in ("anna", "ben", "chief"))
READERS = Readers({"anna": "L7", "ben": "L8"}, ("chief",))
WANTED = Wanted(outcome("parathyroid-localisation"), {}, on=date(2024, 6, 1))
SAYS_SO = {"status": "final", "issued": "2023-02-01T08:00:00Z"}
PEOPLE: dict[str, Any] = {
    "patients": [{"id": f"p{n}", "mrn": str(n)} for n in range(1, 5)],
    "studies": [
        {"uid": f"1.2.{n}", "patient": f"p{n}", "modality": ["NM"], "started": "2023-01-31T09:00:00Z"}
        for n in range(1, 5)
    ],
    "reports": [
        SAYS_SO | {"id": "r1", "patient": "p1", "study": "1.2.1", "text": "Left lower parathyroid adenoma."},
        SAYS_SO | {"id": "r2", "patient": "p2", "study": "1.2.2", "text": "No parathyroid adenoma."},
        SAYS_SO | {"id": "r3", "patient": "p3", "study": "1.2.3", "text": "Parathyroid adenoma?"},
        SAYS_SO | {"id": "r4", "patient": "p4", "study": "1.2.4", "text": "Thyroid normal."},  # does not judge it
        SAYS_SO | {"id": "r5", "patient": "p4", "study": "1.2.4", "text": "Parathyroid adenoma."},  # another reader's
    ],
    "observations": [
        {"id": f"o{n}", "patient": f"p{n}", "code": ["loinc", "22637-3"], "answer": ["icdo", "8140/0"],
         "effectiveDateTime": "2023-03-04"} for n in (1, 2)
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("readings") / "lake")
    lines = list(all_lines(PEOPLE))
    for line in lines:
        if line["type"] == "DiagnosticReport":
            reader = {"identifier": {"value": "L8" if line["id"] == "r5" else "L7"}}
            line["resource"]["resultsInterpreter"] = [reader]
    made.append(lines)
    made.publish(datetime.now(UTC))
    return made


def current(lake: Lake) -> Generation:
    found = lake.current()
    assert found is not None
    return found


def test_a_reader_sees_what_became_of_own_reports(lake: Lake) -> None:
    answer, told = Desk(lake.root, EVERYTHING, readers=READERS).readings(current(lake), WANTED, "L7", ANNA)
    rows = [dict(zip(ROW, row, strict=False)) for row in answer.rows]
    shown = [(r["prediction_id"], r["predicted"], r["outcome"], r["evidence"], r["delay_days"]) for r in rows]
    assert shown == [
        ("r1", True, "confirmed", "Observation/o1", 32),
        ("r2", False, "confirmed", "Observation/o2", 32),
        ("r3", True, "censored", None, None),
    ]
    assert rows[0]["predicted_at"] == "2023-02-01T08:00:00+00:00"
    assert rows[0]["model"] is None
    assert told == "of 3 reports that judge it, 2 have an outcome; 1 agreed with it"


def test_without_rows_there_is_the_sentence_and_with_pseudonyms_no_id(lake: Lake) -> None:
    answer, told = Desk(lake.root, readers=READERS).readings(current(lake), WANTED, "L7", ANNA)
    assert (answer.rows, told[:12]) == ((), "of 3 reports")
    desk = Desk(lake.root, Policy(line_level=True), readers=READERS)
    answer, _ = desk.readings(current(lake), WANTED, "L7", ANNA)
    known = desk.sql(current(lake), "SELECT diagnostic_report_id FROM diagnostic_report", ANNA).rows
    assert {row[0] for row in answer.rows} < {row[0] for row in known}


@pytest.mark.parametrize("who", [BEN, Caller("nobody", "cli"), Caller("anna", "api"), Caller("", "cli")])
def test_nobody_else_sees_it_and_the_attempt_is_logged(lake: Lake, who: Caller) -> None:
    desk = Desk(lake.root, EVERYTHING, readers=READERS)
    with pytest.raises(NotAllowed, match="shown to that reader"):
        desk.readings(current(lake), WANTED, "L7", who)
    assert desk.log.questions()[-1] | {"kind": "readings", "reason": "NotAllowed"} == desk.log.questions()[-1]


def test_a_reviewer_sees_everybodys(lake: Lake) -> None:
    desk = Desk(lake.root, EVERYTHING, readers=READERS)
    assert desk.readings(current(lake), WANTED, "L8", CHIEF)[1].startswith("of 1 reports")


def test_what_reports_decide_cannot_judge_them(lake: Lake) -> None:
    wanted = Wanted(outcome("fracture-in-report"), {}, on=date(2024, 6, 1))
    with pytest.raises(InvalidQuery, match="cannot judge readers"):
        Desk(lake.root, EVERYTHING, readers=READERS).readings(current(lake), wanted, "L7", ANNA)


def test_the_command_tells_a_reader(lake: Lake, tmp_path: Path) -> None:
    me = Caller.here("cli").who
    (tmp_path / "bridge.toml").write_text(f'{EVERYTHING_TOML}readers = {{ {me} = "L7" }}\n', "utf-8")
    common = ["--by", "parathyroid-localisation", "--lake", str(lake.root), "--config", str(tmp_path / "bridge.toml")]
    made = CliRunner().invoke(app, ["outcomes", *common, "--reader", "L7", "--format", "csv"])
    assert made.exit_code == 0, made.exception
    assert made.stdout.count("confirmed") == 2
    assert "Of 3 reports that judge it, 2 have an outcome; 1 agreed with it" in made.stderr
    for arguments in (["--reader", "L8"], ["--reader", "L7", "--cursor", "x.1"], ["LungNet", "--reader", "L7"], []):
        assert CliRunner().invoke(app, ["outcomes", *common, *arguments]).exit_code != 0
