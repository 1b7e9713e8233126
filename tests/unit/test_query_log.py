from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from bridge.errors import InvalidQuery, Unavailable
from cohort import query_log
from cohort.answer import Answer
from cohort.desk import Caller, Desk
from cohort.lake import Lake
from cohort.query_log import CURRENT, Asked, QueryLog
from tests.policies import PATIENT

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ASKED = Asked("eva", "cli", "sql", "SELECT 1", {"n": 1}, "g000001", "counts, pseudonyms")
ANSWER = Answer((("secret", "VARCHAR"),), (("MRN777",),), False, "g000001", 0.5)


def ask(log: QueryLog, asked: Asked = ASKED) -> None:
    with log.asking(asked, NOW) as answers:
        answers.append(ANSWER)


def test_a_question_is_logged_with_who_what_generation_and_rows(tmp_path: Path) -> None:
    log = QueryLog(tmp_path / "log")
    ask(log)
    (entry,) = log.questions()
    wanted = {
        "time": NOW.isoformat(), "event": "answered", "who": "eva", "door": "cli", "kind": "sql", "what": "SELECT 1",
        "parameters": {"n": 1}, "generation": "g000001", "access": "counts, pseudonyms", "rows": 1, "seconds": 0.5,
    }  # fmt: skip
    assert {k: v for k, v in entry.items() if k != "id"} == wanted
    assert (tmp_path / "log" / CURRENT).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700


def test_it_has_no_answers_and_no_messages(tmp_path: Path) -> None:
    log = QueryLog(tmp_path)
    ask(log)
    with pytest.raises(InvalidQuery), log.asking(ASKED, NOW):
        raise InvalidQuery("a message with MRN777")
    text = (tmp_path / CURRENT).read_text()
    assert "MRN777" not in text
    assert "secret" not in text
    assert log.questions()[1]["event"] == "failed"
    assert log.questions()[1]["reason"] == "InvalidQuery"


def test_it_is_written_before_the_question_runs(tmp_path: Path) -> None:
    log = QueryLog(tmp_path)
    with log.asking(ASKED, NOW) as answers:
        (entry,) = log.questions()
        assert entry["event"] == "asked"
        answers.append(ANSWER)


def test_a_question_that_cannot_be_logged_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="cannot be written"), QueryLog(tmp_path / "log").asking(ASKED, NOW):
        pytest.fail("it ran")


def test_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    threads = [threading.Thread(target=ask, args=(QueryLog(tmp_path),)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e["event"] for e in QueryLog(tmp_path).questions()] == ["answered"] * 12


def test_a_line_that_a_crash_cut_short_costs_no_other(tmp_path: Path) -> None:
    log = QueryLog(tmp_path)
    ask(log)
    with (tmp_path / CURRENT).open("ab") as file:
        file.write(b'{"id": "half')
    ask(log)
    assert [e["event"] for e in log.questions()] == ["answered", "answered"]


def test_full_files_are_closed_and_old_ones_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_log, "MOST_BYTES", 500)
    log = QueryLog(tmp_path, days=1)
    old = tmp_path / "queries-20200101T000000000000.ndjson"
    old.write_bytes(orjson.dumps({"id": "old"}) + b"\n")
    import os

    os.utime(old, (0, 0))
    for _ in range(5):
        ask(log)
    assert not old.exists()
    assert len(list(tmp_path.glob("queries-*.ndjson"))) >= 1
    assert len(log.questions()) == 5


def test_a_long_select_is_cut(tmp_path: Path) -> None:
    log = QueryLog(tmp_path)
    ask(log, Asked("eva", "cli", "sql", "x" * 90_000, {}, "g000001", ""))
    assert len(log.questions()[0]["what"]) == query_log.MOST_TEXT


def test_the_desk_logs_what_it_refuses_as_well(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.append(
        [{
            "kind": "resource", "origin": "clinical", "type": "Patient", "id": "p", "revision": 1, "deleted": False,
            "resource": {"resourceType": "Patient", "id": "p"},
        }]
    )  # fmt: skip
    generation = lake.publish(NOW)
    assert generation is not None
    desk = Desk(lake.root, limits=PATIENT)
    with pytest.raises(InvalidQuery):
        desk.sql(generation, "SELECT * FROM patient", Caller("10.0.0.9", "api"))
    (entry,) = desk.log.questions()
    assert (entry["who"], entry["what"], entry["reason"]) == ("10.0.0.9", "SELECT * FROM patient", "NotAllowed")
