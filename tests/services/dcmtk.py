"""DCMTK's own programs; pynetdicom's of the same names lie in the virtual environment."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tests.services.peers import program


@dataclass(frozen=True)
class Dcmtk:
    """Where the programs lie."""

    storescu: Path
    storescp: Path
    echoscu: Path
    findscu: Path
    movescu: Path
    getscu: Path
    dcmqrscp: Path
    dcmdump: Path

    @classmethod
    def installed(cls) -> Dcmtk:
        """Skips or fails the test when one of them is missing."""
        return cls(**{field.name: program(field.name) for field in fields(cls)})

    def send(self, ae_title: str, port: int, files: Sequence[bytes], folder: Path) -> None:
        """Sends files by C-STORE to an archive on loopback; they are written into a folder first."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{number}.dcm" for number in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)
        command = [str(self.storescu), "-R", "-aec", ae_title, "127.0.0.1", str(port)]
        subprocess.run(command + [str(path) for path in paths], check=True, capture_output=True)
