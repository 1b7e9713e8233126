"""`bridge map` as people and programs use it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from rich.console import Console
from typer.testing import CliRunner, Result

from bridge.cli import app
from bridge.code_tables import attribute_table
from bridge.errors import ConfigError
from bridge.map_files import Files
from bridge.map_report import TextReport
from tests.builders import STUDY, a_translator, write_file
from tests.shared import CORPUS, NO_CORPUS, corpus_files


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["map", *map(str, arguments)])


def as_json(*arguments: object) -> Any:
    return json.loads(run("--json", *arguments).stdout)


def test_a_file_is_explained_line_by_line_without_values(tmp_path: Path) -> None:
    done = run(write_file(tmp_path / "a.dcm"))
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"Study {STUDY}: 1 instances, ")
    assert "patient\tPatientName\tmapped\tPatient.name\t1/1\t" in lines
    assert "study\tStudyDate\tmapped\tImagingStudy.started; dicom_study.study_date\t1/1\t" in lines
    assert lines[-1] == "1 files, 0 rejected, 0 not used"
    for value in ("Test", "Eva", "P1", "19700101", "A1", "CT chest"):
        assert value not in done.stdout


def test_values_are_shown_when_asked_for(tmp_path: Path) -> None:
    write_file(tmp_path / "a.dcm")
    write_file(tmp_path / "b.dcm", instance=2)
    assert "Test^Eva" in run("--values", tmp_path).stdout
    attributes = as_json("--values", tmp_path)["studies"][0]["attributes"]
    (found,) = (a for a in attributes if a["attribute"] == "InstanceNumber")
    assert found["values"] == ["1", "2"]
    assert (found["differs"], found["instances"], found["level"]) == (True, 2, "instance")
    (pixels,) = (a for a in attributes if a["attribute"] == "PixelData")
    assert (pixels["differs"], pixels["bytes"]) == (None, 4)
    assert not [a for a in as_json(tmp_path)["studies"][0]["attributes"] if "values" in a]


def test_json_tells_studies_and_the_files_that_are_in_none(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "1.dcm")
    (tmp_path / "a" / "2.dcm").write_bytes((tmp_path / "a" / "1.dcm").read_bytes())
    write_file(tmp_path / "a" / "3.dcm", StudyDescription="other content")
    write_file(tmp_path / "a" / "4.dcm", study="1.2.3.4")
    write_file(tmp_path / "a" / "5.dcm", SeriesInstanceUID=None)
    (tmp_path / "a" / "6.txt").write_text("a letter")
    (tmp_path / "a" / "7.zip").write_bytes(b"PK\3\4" + bytes(60))
    found = as_json(tmp_path / "a")
    assert [s["study_instance_uid"] for s in found["studies"]] == ["1.2.3.4", STUDY]
    assert [s["instances"] for s in found["studies"]] == [1, 1]
    assert found["files"] == 7
    assert [(f["file"], f["reason"].split(" ")[0]) for f in found["rejected"]] == [
        ("a/5.dcm", "SeriesInstanceUID"), ("a/3.dcm", "SOPInstanceUID:"),
    ]  # fmt: skip
    assert {f["file"]: f["reason"] for f in found["not_used"]} == {
        "a/6.txt": "not a DICOM file: no DICM marker, and it does not begin as a data set",
        "a/7.zip": "an archive: unpack it",
        "a/2.dcm": "the same object as in a file before it",
    }
    assert run(tmp_path / "a").exit_code == 1


def test_resources_are_one_valid_bundle_with_each_patient_once(tmp_path: Path) -> None:
    write_file(tmp_path / "1.dcm", PatientName="Older^Name", StudyDate="20200101")
    write_file(tmp_path / "2.dcm", study="1.2.3.4", PatientName="Newer^Name")
    done = run("--resources", tmp_path)
    assert done.exit_code == 0
    bundle = json.loads(done.stdout)
    Bundle.model_validate(bundle)
    assert bundle["type"] == "collection"
    kinds = [e["resource"]["resourceType"] for e in bundle["entry"]]
    assert kinds == ["ImagingStudy", "ImagingStudy", "Patient"]
    assert bundle["entry"][2]["resource"]["name"][0]["family"] == "Newer"
    assert bundle["entry"][2]["fullUrl"].endswith("/fhir/" + bundle["entry"][0]["resource"]["subject"]["reference"])


def test_nothing_to_map_is_an_empty_bundle_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a letter")
    done = run("--resources", tmp_path)
    assert json.loads(done.stdout) == {"resourceType": "Bundle", "type": "collection"}
    assert "not a DICOM file" in done.stderr
    assert done.exit_code == 1


@pytest.mark.parametrize(
    "attributes", [{"StudyDate": "SOON"}, {"SOPClassUID": "nonsense"}], ids=["a value", "an instance"]
)
def test_whatever_is_rejected_gives_exit_code_1(tmp_path: Path, attributes: dict[str, Any]) -> None:
    write_file(tmp_path / "a.dcm")
    write_file(tmp_path / "b.dcm", study="1.2.3.4", **attributes)
    assert run(tmp_path).exit_code == 1


def test_a_study_that_is_rejected_is_told_with_the_reason(tmp_path: Path) -> None:
    write_file(tmp_path / "a.dcm", PatientID="P1")
    write_file(tmp_path / "b.dcm", instance=2, PatientID="P2")
    told = "the instances of this study name different patients"
    assert f"  rejected: PatientID: {told}" in run(tmp_path).stdout
    assert told in run("--resources", tmp_path).stderr
    assert told in as_json(tmp_path)["studies"][0]["refused"]


def test_the_configuration_gives_issuers_and_time_zone(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.dcm", TimezoneOffsetFromUTC=None, IssuerOfPatientID="NEAR")
    (tmp_path / "b.toml").write_text('time_zone = "Europe/Vienna"\n[identity]\nissuers = { NEAR = "urn:oid:1.2.3" }\n')
    plain = json.loads(run("--resources", path).stdout)
    configured = json.loads(run("--resources", "--config", tmp_path / "b.toml", path).stdout)
    assert plain["entry"][0]["resource"]["started"] == "2024-03-01"
    assert configured["entry"][0]["resource"]["started"] == "2024-03-01T09:15:00+01:00"
    assert configured["entry"][1]["resource"]["identifier"][0]["system"] == "urn:oid:1.2.3"


def test_mistakes_are_told(tmp_path: Path) -> None:
    assert isinstance(run(tmp_path / "nowhere").exception, ConfigError)
    assert run("--fhir", "DSTU2", tmp_path).exit_code == 2
    assert run().exit_code == 2


def test_a_terminal_gets_tables_and_nothing_it_would_obey(tmp_path: Path) -> None:
    folder = tmp_path / "a\x1b[31m[bold]x"
    write_file(folder / "a.dcm", StudyDescription="\x1b[2J[red]", AccessionNumber="x" * 16)
    (folder / "letter\x1b[0m.txt").write_text("no image")
    output = io.StringIO()
    report = TextReport(Console(file=output, force_terminal=True, width=200, color_system=None))
    files = Files([folder], Console(file=io.StringIO()))
    for study in files.explained(a_translator(), values=True):
        report.study(study)
    report.end(files.not_used)
    shown = output.getvalue()
    assert "what became of it" in shown
    assert "[red]" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b[31m" not in shown
    assert "not used: a\ufffd[31m[bold]x/letter" in shown


def test_many_files_show_progress_on_stderr_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge import map_files

    monkeypatch.setattr(map_files, "BAR_FROM_FILES", 2)
    for number in range(1, 4):
        write_file(tmp_path / f"{number}.dcm", instance=number)
    done = run("--json", tmp_path)
    assert "Looking through the files: 100 %, 1 studies" in done.stderr
    assert json.loads(done.stdout)["studies"][0]["instances"] == 3


def test_a_file_that_goes_while_it_is_read_is_told(tmp_path: Path) -> None:
    first, second = write_file(tmp_path / "1.dcm"), write_file(tmp_path / "2.dcm", instance=2)
    files = Files([tmp_path], Console(file=io.StringIO()))
    second.unlink()
    (study,) = files.explained(a_translator(), values=False)
    assert first.exists()
    assert study.instances == 1
    assert [reason for _, reason in files.not_used.rejected] == ["it changed while it was read"]


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run(tmp_path / "pipe")
    assert done.exit_code == 1


@pytest.mark.skipif(not CORPUS.is_dir(), reason=NO_CORPUS)
def test_every_file_of_the_corpus_is_in_a_study_or_told(tmp_path: Path) -> None:
    files = Files([CORPUS], Console(file=io.StringIO()))
    studies = list(files.explained(a_translator(), values=True))
    unused = files.not_used
    told = {path for path, _ in (*unused.rejected, *unused.skipped)}
    assert len(told) + sum(s.instances for s in studies) == unused.files >= len(corpus_files())
    assert len(studies) > 80
    assert not unused.incomplete
    for study in studies:
        assert (study.result is None) == bool(study.refused)
        assert {a.path for a in study.attributes} >= {("SOPInstanceUID",), ("StudyInstanceUID",)}
        for attribute in study.attributes:
            named = {rule.element for rule in attribute_table().rules_of(attribute.path)}
            assert attribute.vr == "SQ" or set(attribute.elements) <= named
            assert all(len(value) <= 64 and value.isprintable() for value in attribute.values)
