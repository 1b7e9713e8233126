"""`cohort fetch` from real archives: WADO-RS and C-GET of Orthanc, C-GET of DCMTK's; killed and resumed."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread

from cohort.catalogue import question
from cohort.fetch.plan import Series, wanted
from cohort.sandbox import run as answered
from cohort.selection import Selection
from tests.hospital_lake import TODAY, HospitalLake, hospital_lake
from tests.policies import EVERYTHING_TOML
from tests.services.dcmqrscp import running_dcmqrscp
from tests.services.orthanc_server import OrthancServer, running_orthanc

QUESTION = "osteosarcoma-ct"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(scope="module")
def hospital(archive: OrthancServer, tmp_path_factory: pytest.TempPathFactory) -> HospitalLake:
    """The hospital's lake, with all images of the question in Orthanc."""
    made = hospital_lake(tmp_path_factory.mktemp("hospital"), wado_rs=f"{archive.url}/dicom-web")
    archive.upload(images(made))
    return made


def images(hospital: HospitalLake) -> list[bytes]:
    uids = {one.study_instance_uid for one in listed(hospital)}
    return [
        file.read_bytes()
        for file in sorted(hospital.dicom.rglob("*.dcm"))
        if dcmread(file, specific_tags=["StudyInstanceUID"]).StudyInstanceUID in uids
    ]


def listed(hospital: HospitalLake) -> Sequence[Series]:
    return wanted(Selection(hospital.generation, question(QUESTION), {}, TODAY, answered))


def command(hospital: HospitalLake, to: Path, *more: str) -> list[str]:
    start = [
        sys.executable,
        "-c",
        "from cohort.cli import main; main()",
        "fetch",
        QUESTION,
        "--date",
        TODAY.isoformat(),
    ]
    seen = [] if "--config" in more else ["--config", str(hospital.config)]
    return [*start, "--lake", str(hospital.root), "--to", str(to), *seen, *more]


def signed_in(archive: OrthancServer, folder: Path) -> list[str]:
    path = folder / "bridge.toml"
    path.write_text(
        f'{EVERYTHING_TOML}[[fetch]]\nurl = "{archive.url}/dicom-web"\n'
        f'username = "{archive.username}"\npassword = "${{SECRET}}"\n',
        "utf-8",
    )
    return ["--config", str(path)]


def run(line: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SECRET": OrthancServer.password}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=110, check=False)


def check(hospital: HospitalLake, to: Path) -> int:
    """Every file is the instance that files.csv says, with the content the archive was given. Result: how many."""
    given = {d.SOPInstanceUID: d for d in map(dcmread, sorted(hospital.dicom.rglob("*.dcm")))}
    with (to / "files.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        held = dcmread(to / line["path"])
        assert held.SOPInstanceUID == line["sop_instance_uid"]
        assert held == given[line["sop_instance_uid"]]
    assert len(list(to.rglob("*.dcm"))) == len(lines)
    assert not list(to.rglob("*.part"))
    return len(lines)


def sent(line: list[str], to: Path, number: signal.Signals) -> tuple[int, str]:
    """Runs a fetch and sends it a signal when it has three files more: its exit code, what it wrote to stderr."""
    count, until = len(list(to.rglob("*.dcm"))), time.monotonic() + 60
    environment = os.environ | {"SECRET": OrthancServer.password}
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as started:
        while len(list(to.rglob("*.dcm"))) < count + 3 and time.monotonic() < until:
            time.sleep(0.005)
        started.send_signal(number)
        said = started.communicate(timeout=60)[1]
    return started.returncode, said


def test_by_wado_rs_killed_and_interrupted_in_between_and_resumed(
    hospital: HospitalLake, archive: OrthancServer, tmp_path: Path
) -> None:
    to, total = tmp_path / "images", len(images(hospital))
    line = command(hospital, to, "--parallel", "1", *signed_in(archive, tmp_path))
    for _ in range(10):  # on a busy machine it may be done before the signal is sent
        killed, _said = sent(line, to, signal.SIGKILL)
        code, said = sent(line, to, signal.SIGINT) if killed else (0, "")
        if code:
            break
        shutil.rmtree(to)
    assert (killed, code) == (-signal.SIGKILL, 1)
    assert "the same command goes on from there" in said
    before = {path: path.stat().st_mtime_ns for path in to.rglob("*.dcm")}
    assert 3 <= len(before) < total
    done = run(line)
    assert done.returncode == 0, done.stderr
    assert f"{total} of {total} instances" in done.stdout
    assert check(hospital, to) == total
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_without_credentials_it_says_what_to_set(hospital: HospitalLake, tmp_path: Path) -> None:
    done = run(command(hospital, tmp_path / "images"))
    assert done.returncode == 1
    assert "HTTP 401" in done.stderr and "[[fetch]]" in done.stderr
    assert OrthancServer.password not in done.stderr + done.stdout


def test_by_c_get_from_orthanc(hospital: HospitalLake, archive: OrthancServer, tmp_path: Path) -> None:
    source = f"{archive.ae_title}@127.0.0.1:{archive.dicom_port}"
    done = run(command(hospital, tmp_path / "images", "--from", source))
    assert done.returncode == 0, done.stderr
    assert check(hospital, tmp_path / "images") == len(images(hospital))


def test_by_c_get_from_dcmtk_and_what_it_does_not_have_is_missing(hospital: HospitalLake, tmp_path: Path) -> None:
    content = images(hospital)
    (tmp_path / "archive").mkdir()
    with running_dcmqrscp(tmp_path / "archive") as other:
        other.send(content[:-1])
        line = command(hospital, tmp_path / "images", "--from", f"{other.ae_title}@127.0.0.1:{other.port}")
        done = run(line)
        assert done.returncode == 1, done.stderr
        assert f"{len(content) - 1} of {len(content)} instances" in done.stdout
        assert "1 of" in done.stderr and "does not have it" in done.stderr
        other.send(content[-1:])
        again = run(line)
    assert again.returncode == 0, again.stderr
    assert check(hospital, tmp_path / "images") == len(content)
