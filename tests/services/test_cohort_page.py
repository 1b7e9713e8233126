"""The cohort page in a real browser: it asks, shows, plots, and runs nothing that comes from data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from cohort.clinical import load
from cohort.lake import Lake
from hospital import generate
from tests.policies import EVERYTHING_TOML
from tests.services.peers import free_port, program

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=15000",
)  # fmt: skip


def imaging(number: int, patient: str, modality: str) -> dict[str, Any]:
    uid = f"1.2.3.{number}"
    study = {
        "resourceType": "ImagingStudy",
        "id": f"s{number}",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}],
        "status": "available",
        "started": f"2026-0{number}-03",
        "description": EVIL,
        "modality": [{"code": modality}],
        "subject": {"reference": f"Patient/{patient}"},
    }
    return {
        "kind": "resource", "origin": "bridge", "type": "ImagingStudy", "id": f"s{number}", "revision": 1,
        "deleted": False, "resource": study,
    }  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    generate(folder / "hospital", patients=24, today=date.today())
    (folder / "bridge.toml").write_text(EVERYTHING_TOML)
    lake = Lake(folder / "lake")
    load([folder / "hospital" / "clinical"], lake, datetime.now(UTC))
    lake.append(
        [imaging(1, "pat-mrn000001", "CT"), imaging(2, "pat-mrn000002", "CT"), imaging(3, "pat-mrn000003", "MR")]
    )
    lake.publish(datetime.now(UTC))
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("cohort")),
        "serve",
        "--lake",
        str(folder / "lake"),
        "--config",
        str(folder / "bridge.toml"),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/cohort/"
    transport = httpx.HTTPTransport(retries=50)
    with httpx.Client(transport=transport, trust_env=False) as client:
        for _ in range(100):
            try:
                client.get(url).raise_for_status()
                break
            except httpx.TransportError:
                continue
    yield url
    process.terminate()
    process.wait(20)


def browse(url: str, folder: Path, *more: str) -> str:
    command = [str(program("chromium")), *FLAGS, f"--user-data-dir={folder / 'profile'}", *more, url]
    done = subprocess.run(command, capture_output=True, timeout=100, check=True)
    return done.stdout.decode("utf-8")


def test_the_page_answers_the_founding_question_and_draws_its_plots(page: str, tmp_path: Path) -> None:
    shown = browse(page, tmp_path, "--dump-dom")
    assert "2 rows, generation g000001" in shown
    assert shown.count("<tr>") == 3
    assert "study_instance_uid" in shown
    assert shown.count("<svg") == 2
    assert "CT</text>" in shown
    assert "diagnostic_report_study (" in shown


def test_nothing_from_the_data_is_read_as_html(page: str, tmp_path: Path) -> None:
    shown = browse(page, tmp_path, "--dump-dom")
    assert "<title>Cohort</title>" in shown
    assert "&lt;img src=x onerror=" in shown
    assert "<img" not in shown


def test_the_page_can_be_seen_on_a_small_screen(page: str, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    browse(page, tmp_path, "--window-size=420,900", f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
