"""The operations page in a real browser, of a real bridge: what it shows, the replay, and that nothing in it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import STUDY, write_file
from tests.services.bridge_process import BridgeProcess
from tests.services.browser import Page, browsing
from tests.services.peers import free_port

EVIL = "<img src=x onerror=document.title=String(1)>.dcm"

SOURCES = """
[[sources]]
kind = "folder"
name = "inbox"
path = "inbox"
poll_s = 0.2
settle_s = 0

[[sources]]
kind = "orthanc"
name = "pacs"
url = "http://127.0.0.1:{closed}"
poll_s = 0.5

[[sinks]]
kind = "fhir_server"
name = "ehr"
url = "http://127.0.0.1:{closed}/fhir"
"""


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[BridgeProcess]:
    """A bridge with two studies, a file that is no DICOM, an archive and an EHR that are away."""
    inbox = tmp_path / "inbox"
    for number in (1, 2):
        write_file(inbox / f"{number}.dcm", study=f"{STUDY}.{number}")
    size = write_file(tmp_path / "sound.dcm", study=f"{STUDY}.3").stat().st_size
    (inbox / EVIL).write_bytes(b"no DICOM".ljust(size))
    bridge = BridgeProcess(tmp_path, SOURCES.format(closed=free_port()), {})
    bridge.start()
    for number in (1, 2):
        bridge.study(f"{STUDY}.{number}", status="available")
    bridge.wait_for("the parked file", lambda: bridge.queue("file:inbox").get("parked"))
    yield bridge
    bridge.close()


@pytest.fixture
def page(bridge: BridgeProcess, tmp_path: Path) -> Iterator[Page]:
    with browsing(tmp_path) as page:
        page.open(f"http://127.0.0.1:{bridge.port}/operations/")
        page.wait_for("#message", "As of")
        yield page


def test_the_page_shows_how_sources_sinks_and_queues_are(page: Page) -> None:
    page.wait_for("#sources", "connection refused")
    inbox, pacs, *_ = page.says("[...document.querySelectorAll('#sources tbody tr')].map(r => r.innerText)")
    assert inbox.split("\t") == ["inbox", "folder", "0 s", "1", "well"]
    assert pacs.startswith("pacs\torthanc\t")
    page.wait_for("#sinks", "connection refused")
    lake = page.says("[...document.querySelectorAll('#sinks tbody tr')].map(r => r.innerText)")[1]
    assert lake.split("\t") == ["lake", "0 s", "0", "0", "", "well"]
    assert "sink:ehr" in page.text("#queues")
    assert page.text("#throughput").startswith("2 studies, in intervals of 5 min.")
    assert page.says("document.querySelectorAll('#throughput rect').length") == 36
    heights = page.says("[...document.querySelectorAll('#throughput rect')].map(r => Number(r.getAttribute('height')))")
    assert sum(1 for height in heights if height > 0) in (1, 2)
    assert page.console == []  # nor was anything refused by the content security policy


def test_parked_work_is_replayed_by_a_click(page: Page, bridge: BridgeProcess, tmp_path: Path) -> None:
    page.wait_for("#parked", "img src=x")
    _repair(tmp_path / "inbox" / EVIL, write_file(tmp_path / "repaired.dcm", study=f"{STUDY}.3"))
    page.click("#parked button")
    page.wait_for("#replayed", "1 will be tried again.")
    bridge.study(f"{STUDY}.3", status="available")
    page.wait_for("#parked", "Nothing is parked.")
    assert page.says("document.querySelector('#replay-all').disabled")


def _repair(broken: Path, sound: Path) -> None:
    """Puts a sound file in the place of a broken one so that the folder sees no change: only a replay reads it."""
    before = broken.stat()
    assert sound.stat().st_size == before.st_size
    os.utime(sound, ns=(before.st_atime_ns, before.st_mtime_ns))
    sound.replace(broken)


def test_all_that_is_shown_is_replayed_and_what_fails_again_comes_back(page: Page, bridge: BridgeProcess) -> None:
    (before,) = bridge.get("/operations/parked", queue="file:inbox")
    page.says("document.querySelector('#queue').value = 'file:inbox'")
    page.click("#replay-all")
    page.wait_for("#replayed", "1 will be tried again.")

    def parked_anew() -> bool:
        return any(i["generation"] > before["generation"] for i in bridge.get("/operations/parked", queue="file:inbox"))

    bridge.wait_for("the file parked again", parked_anew)
    page.wait_for("#parked", "file:inbox")


def test_nothing_that_is_shown_is_read_as_html(page: Page) -> None:
    page.wait_for("#parked", EVIL)
    assert page.says("document.querySelectorAll('img').length") == 0
    assert page.says("document.title") == "Operations"


def test_the_page_says_when_the_bridge_is_away_and_goes_on_when_it_is_back(page: Page, bridge: BridgeProcess) -> None:
    bridge.stop()
    page.wait_for("#message", "The bridge cannot be asked")
    bridge.start()
    page.wait_for("#message", "As of")
    assert "inbox" in page.text("#sources")


def test_the_page_fits_a_small_screen(page: Page) -> None:
    page.size(390, 844)
    page.wait_for("#parked", "img src=x")
    assert page.says("document.documentElement.scrollWidth") <= 390
