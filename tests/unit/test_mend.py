"""A damaged lake is made good: what follows from the resources is made anew, the bridge's own comes from the state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cohort.generation import Generations
from cohort.lake import Lake
from cohort.mend import Mended, mend
from cohort.tables import Tables
from cohort.verified import checked
from tests.builders import headers
from tests.fhir_fake import FhirFake
from tests.hospital_lake import NOW, HospitalLake, hospital_lake
from tests.unit.test_reconcile import STUDIES, Hospital, State

Rows = dict[str, Counter[str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> HospitalLake:
    return hospital_lake(tmp_path_factory.mktemp("whole"), patients=8)


def files_of(lake: Lake) -> dict[str, list[Path]]:
    """table → the files of its newest generation."""
    tables = Generations(lake.place.store, lake.place.files).head().tables
    folder = lake.root / "files"
    return {name: [folder / entry["file"] for entry in t["layers"]] for name, t in tables.items() if t["layers"]}


def rows_of(lake: Lake) -> Rows:
    """table → its rows."""
    head = Generations(lake.place.store, lake.place.files).head()
    with lake.place.scratch() as scratch, Tables(lake.place.files, scratch, "test", head.tables) as tables:
        return {
            name: Counter(map(repr, tables.db.execute(f"SELECT * FROM {tables.scan(name)}").fetchall()))
            for name in tables.layers
            if tables.layers[name]
        }


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 4
    path.write_bytes(content)


def test_every_table_made_of_resources_is_made_anew(whole: HospitalLake, tmp_path: Path) -> None:
    before = rows_of(whole.lake)
    lake = whole.copy(tmp_path).lake
    made = sorted(n for n in files_of(lake) if not n.startswith(("resource_", "dicom_", "rows_")))
    for table in (*made[::6], "disputed_study", "patient_link"):
        for path in files_of(lake).get(table, []):
            flip(path)
            assert mend(lake, NOW, lambda: None).tables == (table,)
            assert rows_of(lake) == before, table


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    found = Hospital(state, FhirFake(), tmp_path)
    found.real_lake.publish(NOW)
    yield found
    state.close()


def agrees(hospital: Hospital) -> bool:
    return all(one.agrees for one in hospital.reconcile(whole=True).comparisons)


def again(hospital: Hospital) -> Callable[[], None]:
    return lambda: hospital.state.mark_known("lake", hospital.now)


def test_whatever_of_the_bridges_own_is_damaged_comes_again_from_the_state(hospital: Hospital) -> None:
    lake = hospital.real_lake
    before = rows_of(lake)
    for table in ("resource_ImagingStudy", "dicom_instance", "rows_revision", "imaging_study", "dicom_study"):
        for path in files_of(lake)[table]:
            flip(path)
        assert table in mend(lake, NOW, again(hospital)).tables
        hospital.run()
        lake.publish(NOW)
        assert rows_of(lake) == before, table
        assert not [key for key, problem in checked(lake) if problem]
    assert agrees(hospital)


@pytest.mark.parametrize("key", ["CURRENT", "generations/g000002.json", "generations/g000001.json"])
def test_a_damaged_manifest_leads_back_to_the_generation_before(hospital: Hospital, key: str) -> None:
    lake = hospital.real_lake
    hospital.a.put(headers(study=STUDIES[0], series=1, instance=5))
    hospital.run()
    lake.publish(NOW)
    flip(lake.root / key)
    mended = mend(lake, NOW, again(hospital))
    assert (mended.keys, bool(mended.since)) == ((key,), key.endswith("2.json"))
    assert not [key for key, problem in checked(lake) if problem]
    hospital.run()
    lake.publish(NOW)
    assert agrees(hospital)


def test_a_damaged_delta_is_delivered_again(hospital: Hospital) -> None:
    lake = hospital.real_lake
    hospital.a.put(headers(study=STUDIES[0], series=1, instance=5))
    hospital.run()
    (path,) = (lake.root / "delta").iterdir()
    flip(path)
    assert mend(lake, NOW, again(hospital)).keys == (f"delta/{path.name}",)
    hospital.run()
    lake.publish(NOW)
    assert agrees(hospital)


def test_what_was_loaded_and_is_damaged_is_named(whole: HospitalLake, tmp_path: Path) -> None:
    lake = whole.copy(tmp_path).lake
    flip(files_of(lake)["resource_Condition"][0])
    mended = mend(lake, NOW, lambda: None)
    assert mended.types == ("Condition",)
    assert "load again what was loaded of Condition" in mended.told()


def test_a_whole_lake_is_left_alone(hospital: Hospital) -> None:
    before = hospital.real_lake.current()
    assert mend(hospital.real_lake, NOW, lambda: pytest.fail("nothing is damaged")) == Mended()
    assert hospital.real_lake.current() == before
