"""The DICOM corpus as the bridge sees it: one watched folder, followed until nothing is left to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bridge.sources.folder import Folder
from bridge.state import State
from bridge.sync import Pipeline, Timing
from tests.archive_fake import FakeSink
from tests.builders import a_translator
from tests.shared import CORPUS

NOW = 4_000_000_000.0


class Corpus:
    """Its state, and a sink that holds what was made of it. `endpoint` is where its studies can be fetched."""

    def __init__(self, folder: Path, endpoint: str | None = None) -> None:
        self.state = State(f"sqlite:///{folder / 's.sqlite'}")
        self.sink = FakeSink("lake", wants_rows=True)
        self.now = NOW
        source = Folder("corpus", CORPUS, self.state, lambda: self.now)
        self.pipeline = Pipeline(
            state=self.state,
            sources={"corpus": source},
            sinks={"lake": self.sink},
            translator=a_translator(order=("corpus",), endpoints={"corpus": endpoint} if endpoint else None),
            timing=Timing(quiet_s=0),
            clock=lambda: self.now,
            random=lambda: 1.0,
        )
        self.pipeline.prepare()
        self.drain()

    def drain(self) -> None:
        for _ in range(5):
            self.now += 5
            while self.pipeline.poll("w") or self.pipeline.translate("w") or self.pipeline.deliver("lake", "w"):
                pass

    def instances(self) -> set[str]:
        return {i["uid"] for study in self.studies() for s in study["series"] for i in s["instance"]}

    def studies(self) -> list[Any]:
        return self.resources("ImagingStudy")

    def resources(self, kind: str) -> list[Any]:
        """The newest content of each resource of a type, once."""
        stored = {r.id: r.content for state in self.sink.newest().values() for r in state.of_type(kind)}
        return [content for content in stored.values() if content is not None]
