"""The synthetic hospital in a lake, and its DICOM files: translated as the bridge does, without its loops."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bridge.code_tables import code_tables, dicom_columns
from bridge.model import WadoEndpoint
from bridge.sources.part10 import read_headers
from bridge.translate.headers import Headers
from bridge.translate.site import Site
from bridge.translate.study import Translator
from cohort.clinical import load
from cohort.generation import Generation
from cohort.lake import Lake
from hospital import Hospital, plan, write
from tests.policies import EVERYTHING_TOML

TODAY = date(2026, 1, 1)
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SEED = 20260101


@dataclass(frozen=True)
class HospitalLake:
    """A lake of the whole hospital; `dicom` are its files."""

    hospital: Hospital
    root: Path
    dicom: Path

    @property
    def config(self) -> Path:
        """A configuration under which everything may be seen."""
        return self.root.parent / "bridge.toml"

    @property
    def lake(self) -> Lake:
        return Lake(self.root)

    @property
    def generation(self) -> Generation:
        current = self.lake.current()
        assert current is not None
        return current

    def copy(self, folder: Path) -> HospitalLake:
        """The same lake in another folder, for a test that changes it."""
        shutil.copytree(self.root, folder / "lake", ignore=shutil.ignore_patterns("log"))
        shutil.copy(self.config, folder)
        return HospitalLake(self.hospital, folder / "lake", self.dicom)

    def put(self, *lines: Mapping[str, Any]) -> None:
        """Publishes further lines of the delta."""
        self.lake.append(lines)
        self.lake.publish(NOW)


def hospital_lake(folder: Path, patients: int = 14, wado_rs: str = "http://127.0.0.1:8042/dicom-web") -> HospitalLake:
    """Clinical and imaging side of a small hospital, published; its archive's WADO-RS base is `wado_rs`."""
    (folder / "bridge.toml").write_text(EVERYTHING_TOML, "utf-8")
    hospital = plan(patients, SEED, TODAY)
    write(hospital, folder / "hospital")
    lake = Lake(folder / "lake")
    load([folder / "hospital" / "clinical"], lake, NOW)
    dicom = folder / "hospital" / "dicom"
    translator = Translator(Site(code_tables()), ("pacs",), {"pacs": WadoEndpoint("pacs", wado_rs)}, dicom_columns())
    lake.append(line for uid, headers in _studies(dicom) for line in _lines(translator, uid, headers))
    lake.publish(NOW)
    return HospitalLake(hospital, lake.root, dicom)


def _studies(dicom: Path) -> Iterator[tuple[str, Sequence[Headers]]]:
    found: dict[str, list[Headers]] = {}
    for file in sorted(dicom.rglob("*.dcm")):
        headers = read_headers(file)
        found.setdefault(headers.text("StudyInstanceUID"), []).append(headers)
    yield from sorted(found.items())


def _lines(translator: Translator, uid: str, headers: Sequence[Headers]) -> Iterator[dict[str, Any]]:
    result = translator.translate(uid, {"pacs": headers})
    for resource in (*result.resources, *([result.patient] if result.patient else [])):
        yield resource_line(resource, "bridge")
    for table, rows in translator.rows(uid, {"pacs": headers}).items():
        yield {"kind": "rows", "table": table, "key": uid, "revision": 1, "rows": list(rows)}


def resource_line(resource: Mapping[str, Any], origin: str = "clinical", revision: int = 1) -> dict[str, Any]:
    """A line of the delta that holds a resource."""
    return {
        "kind": "resource", "origin": origin, "type": resource["resourceType"], "id": resource["id"],
        "revision": revision, "deleted": False, "resource": resource,
    }  # fmt: skip
