"""A folder of files as the one archive of a pipeline, for what its documents become."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from bridge.sources.folder import Folder
from bridge.state import State
from tests.builders import STUDY, a_translator, as_file
from tests.sr_documents import an_image, as_bytes
from tests.unit.test_sync import Rig


class DocumentRig(Rig):
    """Its folder holds a study of one CT image; `archive` is the address of a WADO-RS service of it, if any."""

    def __init__(self, root: Path, archive: str = "", state: State | None = None) -> None:
        super().__init__(state or State(f"sqlite:///{root / 's.sqlite'}"))
        self.folder = root / "archive"
        self.folder.mkdir()
        self.pipeline.sources = {"folder": Folder("folder", self.folder, self.state, time.time, settle_s=0)}
        self.pipeline.translator = a_translator(("folder",), {"folder": archive} if archive else {})
        self.pipeline.prepare()
        self.put("image.dcm", as_file(an_image()))

    def put(self, name: str, content: bytes | Dataset) -> None:
        (self.folder / name).write_bytes(as_bytes(content) if isinstance(content, Dataset) else content)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The resources of a type that the study has now."""
        found = self.state.study_resources(STUDY)
        return [r.content for r in found if r.resource_type == kind and r.content is not None]

    def parked(self) -> dict[str, str]:
        """Key → why it is parked, of everything that is."""
        return {item.key: item.error for item in self.state.items(parked=True)}
