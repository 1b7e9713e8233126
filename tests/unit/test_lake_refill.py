"""A bridge whose lake was taken away fills a new one."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bridge import config
from bridge.compose import Bridge
from bridge.errors import ConfigError, SinkUnavailable
from tests.builders import STUDY, write_file
from tests.services.peers import free_port


def settings(folder: Path) -> config.Settings:
    source = {"kind": "folder", "name": "in", "path": str(folder / "in"), "poll_s": 0.1, "settle_s": 0}
    port = {"port": free_port()}
    return config.parse({"data_dir": str(folder), "quiet_s": 0.1, "api": port, "sources": [source]})


def filled(folder: Path, studies: int = 1) -> None:
    """Runs a bridge until its lake has the studies."""
    with Bridge(settings(folder)).running() as bridge:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(SinkUnavailable):  # its newest generation is damaged
                current = bridge.lake.current()
                if current is not None and current.tables["dicom_study"].rows == studies:
                    return
            time.sleep(0.1)
    raise AssertionError("the lake has not got the study")


def test_a_lake_that_was_taken_away_is_filled_again_from_what_is_known(tmp_path: Path) -> None:
    write_file(tmp_path / "in" / "1.dcm", study=STUDY)
    filled(tmp_path)
    shutil.rmtree(tmp_path / "lake")
    filled(tmp_path)


@pytest.mark.parametrize("damaged", ["resource_ImagingStudy-*", "rows_revision-*", "manifest"])
def test_a_lake_that_was_damaged_is_made_good_by_the_running_bridge(tmp_path: Path, damaged: str) -> None:
    write_file(tmp_path / "in" / "1.dcm", study=STUDY)
    filled(tmp_path)
    newest = f"{(tmp_path / 'lake' / 'CURRENT').read_text('ascii')}.json"
    where = ("generations", newest) if damaged == "manifest" else ("files", damaged)
    for path in (tmp_path / "lake" / where[0]).glob(where[1]):
        path.write_bytes(path.read_bytes()[:-20])
    write_file(tmp_path / "in" / "2.dcm", study=f"{STUDY}.2", instance=2)
    filled(tmp_path, studies=2)


def test_a_lake_of_another_version_is_told_at_the_start(tmp_path: Path) -> None:
    write_file(tmp_path / "in" / "1.dcm", study=STUDY)
    filled(tmp_path)
    (newest,) = sorted((tmp_path / "lake" / "generations").glob("*.json"))[-1:]
    newest.write_bytes(newest.read_bytes().replace(b'"format":', b'"was":'))
    with pytest.raises(ConfigError, match="another version"), Bridge(settings(tmp_path)).running():
        pass
