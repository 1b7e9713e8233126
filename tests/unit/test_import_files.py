"""Importing files once: into the spool, through the pipeline, whatever stops it on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bridge.compose import Bridge
from bridge.config import Settings, embedded, parse
from bridge.errors import ConfigError, SourceUnavailable
from bridge.import_files import SOURCE, import_files, including_import
from bridge.import_report import Summary, show
from bridge.roles import alone
from bridge.sources.importer import Verdict, imported
from bridge.sources.preamble import problem
from bridge.sources.spool import Spool
from bridge.state import State
from tests.builders import STUDY, a_dataset, as_file, write_file
from tests.folder_rig import tar_bytes, zip_bytes

OTHER = STUDY + ".9"
QUIET = Console(file=StringIO())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return embedded(tmp_path / "data").model_copy(update={"quiet_s": 0.0})


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    """A disc with two studies and what else lies on discs."""
    root = tmp_path / "DISC"
    write_file(root / "IMAGES" / "IM1")
    write_file(root / "IMAGES" / "IM2", instance=2)
    write_file(root / "IMAGES" / "IM3", study=OTHER)
    (root / "VIEWER.EXE").write_bytes(b"MZ" * 500)
    (root / "cut.dcm").write_bytes(as_file(a_dataset(instance=3))[:-2])
    return root


def counts(summary: Summary) -> dict[str, int]:
    return {verdict.value: number for verdict, number in summary.verdicts.items() if number}


def state_of(settings: Settings) -> State:
    return State(settings.database_url)


def test_everything_under_a_path_becomes_studies_and_the_disc_may_go(settings: Settings, disc: Path) -> None:
    summary = import_files(settings, [disc], QUIET)
    assert counts(summary) == {"imported": 3, "rejected": 1, "skipped": 1}
    assert summary.studies == {STUDY, OTHER}
    assert summary.working == "Translated and delivered"
    assert summary.skipped[0][0] == "DISC/VIEWER.EXE"
    assert summary.rejected[0][0] == "DISC/cut.dcm"
    for path in sorted(disc.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    bridge = Bridge(including_import(settings))
    assert bridge.state.counts() == {"ImagingStudy": 2, "Patient": 1}
    assert bridge.lake.current() is not None
    page = bridge.sources[SOURCE].changes(bridge.state.position(SOURCE))
    assert (page.files, page.gone) == ((), ())
    assert dict(bridge.sources[SOURCE].inventory()) == {STUDY: 2, OTHER: 1}
    assert [i.key for i in bridge.state.items(parked=True)] == ["DISC/cut.dcm"]
    bridge.state.close()


def test_the_same_again_changes_nothing(settings: Settings, disc: Path) -> None:
    import_files(settings, [disc], QUIET)
    before = sorted((settings.data_dir / "spool").rglob("*.dcm"))
    state = state_of(settings)
    revisions = [r.revision for r in state.study_resources(STUDY)]
    summary = import_files(settings, [disc], QUIET)
    assert counts(summary) == {"duplicate": 3, "rejected": 1, "skipped": 1}
    assert sorted((settings.data_dir / "spool").rglob("*.dcm")) == before
    assert [r.revision for r in state.study_resources(STUDY)] == revisions
    assert list((settings.data_dir / "spool" / SOURCE / "incoming").iterdir()) == []
    state.close()


def test_a_file_that_is_mended_is_no_longer_parked(settings: Settings, disc: Path) -> None:
    import_files(settings, [disc], QUIET)
    write_file(disc / "cut.dcm", instance=3)
    assert counts(import_files(settings, [disc], QUIET))["imported"] == 1
    state = state_of(settings)
    assert state.items(parked=True) == []
    state.close()


def test_other_content_of_an_instance_is_kept_beside_the_first_and_told(settings: Settings, tmp_path: Path) -> None:
    one, two = write_file(tmp_path / "1.dcm"), write_file(tmp_path / "2.dcm", StudyDescription="other")
    summary = import_files(settings, [one, two], QUIET)
    assert counts(summary) == {"imported": 1, "conflict": 1}
    assert summary.parked
    assert len(list((settings.data_dir / "spool").rglob("*.dcm"))) == 2
    state = state_of(settings)
    (study,) = [r.content for r in state.study_resources(STUDY) if r.resource_type == "ImagingStudy"]
    assert study is not None
    assert study["description"] == "CT chest"
    state.close()


def test_the_same_object_in_another_wrapping_is_a_duplicate(settings: Settings, tmp_path: Path) -> None:
    plain, sent = as_file(a_dataset()), a_dataset()
    sent.file_meta.SourceApplicationEntityTitle = "SOMEWHERE"
    contents = {"plain.dcm": plain, "program.dcm": b"MZ" * 64 + plain[128:], "sent.dcm": as_file(sent)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    summary = import_files(settings, [tmp_path / name for name in contents], QUIET)
    assert counts(summary) == {"imported": 1, "duplicate": 2}


def test_what_hides_in_a_preamble_is_not_kept(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "program.dcm"
    file.write_bytes(b"MZ" * 64 + as_file(a_dataset())[128:])
    import_files(settings, [file], QUIET)
    (kept,) = (settings.data_dir / "spool").rglob("*.dcm")
    assert kept.read_bytes()[:64] == bytes(64)
    assert kept.read_bytes()[128:] == file.read_bytes()[128:]
    assert problem(kept) == ""


@pytest.mark.parametrize(("name", "packed"), [("a.zip", zip_bytes), ("a.tgz", tar_bytes)])
def test_archives_are_imported_member_by_member(settings: Settings, tmp_path: Path, name: str, packed: object) -> None:
    files = {"1.dcm": as_file(a_dataset()), "2.dcm": as_file(a_dataset(study=OTHER)), "notes.txt": b"x" * 300}
    files |= {"cut.dcm": as_file(a_dataset(instance=3))[:-2], "../up.dcm": as_file(a_dataset(instance=4))}
    (tmp_path / name).write_bytes(packed(files))  # type: ignore[operator]
    summary = import_files(settings, [tmp_path / name], QUIET)
    assert counts(summary) == {"imported": 2, "rejected": 2, "skipped": 1}
    assert [key for key, _ in summary.skipped] == [f"{name}!notes.txt"]
    assert summary.studies == {STUDY, OTHER}
    assert counts(import_files(settings, [tmp_path / name], QUIET))["duplicate"] == 2
    assert list((settings.data_dir / "spool" / SOURCE / "incoming").iterdir()) == []


def test_a_disc_copied_in_part_is_told_by_its_media_directory(settings: Settings, disc: Path) -> None:
    names = b"\x04\x00\x00\x15CS\x0a\x00IMAGES\\IM1" + b"\x04\x00\x00\x15CS\x0a\x00IMAGES\\IM9"
    directory = as_file(a_dataset(SOPClassUID="1.2.840.10008.1.3.10", StudyInstanceUID=None, PixelData=None))
    directory += b"\x09\x00\x01\x00OB\0\0" + len(names).to_bytes(4, "little") + names
    (disc / "DICOMDIR").write_bytes(directory)
    summary = import_files(settings, [disc], QUIET)
    assert ("DISC/DICOMDIR", "1 of the 2 files that this DICOMDIR names are not here") in summary.rejected
    (disc / "IMAGES" / "IM9").write_bytes((disc / "IMAGES" / "IM1").read_bytes())
    assert ("DISC/DICOMDIR", "a DICOMDIR") in import_files(settings, [disc], QUIET).skipped


def test_beside_a_running_bridge_the_import_leaves_the_work_to_it(settings: Settings, disc: Path) -> None:
    bridge = Bridge(including_import(settings))
    bridge.pipeline.prepare()
    while bridge.pipeline.poll("w/0"):
        pass
    with alone(settings):
        summary = import_files(settings, [disc], QUIET)
    assert summary.working == "The running bridge translates and delivers them"
    assert bridge.state.counts() == {}
    while bridge.pipeline.translate("w/0"):
        pass
    assert bridge.state.counts() == {"ImagingStudy": 2, "Patient": 1}
    page = bridge.sources[SOURCE].changes(bridge.state.position(SOURCE))
    assert len(page.files) == 3
    assert page.gone == ()
    bridge.state.close()


def test_two_imports_at_once_are_refused(settings: Settings, disc: Path) -> None:
    script = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    spool = settings.data_dir / "spool" / SOURCE
    spool.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(spool / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ConfigError, match="another import"):
            import_files(settings, [disc], QUIET)
        other.communicate(b"\n")


def test_files_imported_in_place_stay_and_are_followed(settings: Settings, disc: Path) -> None:
    summary = import_files(settings, [disc], QUIET, in_place=True)
    assert counts(summary) == {"imported": 3, "rejected": 2}
    assert summary.studies == {STUDY, OTHER}
    assert list((settings.data_dir / "spool").rglob("*.dcm")) == []
    (disc / "IMAGES" / "IM3").unlink()
    assert counts(import_files(settings, [disc], QUIET, in_place=True)) == {}
    bridge = Bridge(including_import(settings))
    (name,) = bridge.sources.keys() - {s.name for s in settings.sources} - {SOURCE}
    assert dict(bridge.sources[name].inventory()) == {STUDY: 2}
    (study,) = [r.content for r in bridge.state.study_resources(OTHER) if r.resource_type == "ImagingStudy"]
    assert study is not None
    assert study["status"] == "entered-in-error"
    disc.rename(disc.with_name("elsewhere"))
    with pytest.raises(SourceUnavailable):
        bridge.sources[name].changes(bridge.state.position(name))
    bridge.state.close()


def test_in_place_takes_folders_and_no_running_bridge(settings: Settings, disc: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        import_files(settings, [disc / "cut.dcm"], QUIET, in_place=True)
    settings.data_dir.mkdir()
    with alone(settings), pytest.raises(ConfigError, match="in use"):
        import_files(settings, [disc], QUIET, in_place=True)
    assert len(including_import(settings).sources) == len(settings.sources) + 1


def test_what_was_deleted_in_the_spool_can_be_imported_again(settings: Settings, disc: Path) -> None:
    import_files(settings, [disc], QUIET)
    for file in (settings.data_dir / "spool").rglob("*.dcm"):
        file.unlink()
    assert counts(import_files(settings, [disc], QUIET))["imported"] == 3


RUN = """
import sys
from pathlib import Path
from rich.console import Console
from bridge.config import embedded
from bridge.import_files import import_files
import bridge.sources.importer as importer
importer.BATCH_OBJECTS = 5
settings = embedded(Path(sys.argv[1])).model_copy(update={"quiet_s": 0.0})
summary = import_files(settings, [Path(sys.argv[2])], Console())
print("interrupted" if summary.interrupted else "done", len(summary.studies))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_import_that_was_stopped_goes_on_where_it_was(
    settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    for n in range(1, 301):
        write_file(tmp_path / "many" / f"{n:03}.dcm", instance=n)
    command = [sys.executable, "-c", RUN, str(settings.data_dir), str(tmp_path / "many")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        until = time.monotonic() + 60
        while not list((settings.data_dir / "spool").rglob("studies/*/*/*.dcm")) and time.monotonic() < until:
            time.sleep(0.005)
        first.send_signal(number)
        told, _ = first.communicate(timeout=60)
    kept = len(list((settings.data_dir / "spool").rglob("studies/*/*/*.dcm")))
    assert 0 < kept < 300
    assert ("interrupted" in told) == (number is signal.SIGINT), told
    summary = import_files(settings, [tmp_path / "many"], QUIET)
    assert summary.verdicts[Verdict.IMPORTED] == 300 - kept
    assert summary.verdicts[Verdict.DUPLICATE] == kept
    state = state_of(settings)
    (study,) = [r.content for r in state.study_resources(STUDY) if r.resource_type == "ImagingStudy"]
    assert study is not None
    assert study["numberOfInstances"] == 300
    assert list((settings.data_dir / "spool" / SOURCE / "incoming").iterdir()) == []
    state.close()


def test_a_full_disk_stops_the_import_and_leaves_no_part(tmp_path: Path, disc: Path) -> None:
    spool = Spool(tmp_path / "spool")
    with pytest.raises(SourceUnavailable, match="bytes are free"):
        list(imported([disc], spool, lambda _study: frozenset(), minimum_free_bytes=2**62))
    assert list(spool.incoming.iterdir()) == []


def test_a_file_that_changes_while_it_is_read_is_told_and_not_kept(tmp_path: Path) -> None:
    file, spool = write_file(tmp_path / "a.dcm"), Spool(tmp_path / "spool")

    def held(_study: str) -> frozenset[str]:
        with file.open("ab") as growing:
            growing.write(b"more")
        return frozenset()

    ((judged,),) = imported([file], spool, held)
    assert (judged.verdict, judged.reason) == (Verdict.REJECTED, "it changed while it was read: import it again")
    assert list(spool.incoming.iterdir()) == []


def test_wrong_use_is_told_before_anything_is_done(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        import_files(settings, [tmp_path / "nothing"], QUIET)
    (settings.data_dir / "inbox").mkdir(parents=True)
    with pytest.raises(ConfigError, match="data_dir"):
        import_files(settings, [settings.data_dir / "inbox"], QUIET)
    taken = parse({"sources": [{"kind": "folder", "name": "import", "path": "x"}]})
    with pytest.raises(ConfigError, match="name import"):
        including_import(taken)


def test_progress_and_summary_are_plain_lines_without_a_terminal(settings: Settings, disc: Path) -> None:
    shown = StringIO()
    console = Console(file=shown, width=200)
    summary = import_files(settings, [disc], console)
    show(summary, console)
    assert "Importing 5 files: 100 %, 3 objects" in shown.getvalue()
    assert "5 files: 3 objects imported into 2 studies" in shown.getvalue()
    assert "1 × truncated: (7FE0,0010) PixelData" in shown.getvalue()
    plain = summary.as_json()
    assert plain["rejected_files"] == [{"file": "DISC/cut.dcm", "reason": summary.rejected[0][1]}]
    assert plain["reasons"] == {summary.rejected[0][1]: 1}
