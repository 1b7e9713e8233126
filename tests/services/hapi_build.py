"""Builds the HAPI FHIR JPA server of `hapi_server/` with Maven, once, outside the repository."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.services.peers import missing, program

HERE = Path(__file__).parent / "hapi_server"
BUILD_S = 1200
"""The first build fetches some 280 MB of libraries into Maven's own cache."""


def hapi_classpath() -> str:
    """The Java class path of the built server. Builds it if these sources were not built yet; one process at a time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imaging-bridge" / "hapi"
    built = cache / _digest()
    if not built.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not built.exists():
                _build(cache, built)
    return ":".join([str(next(built.glob("*.jar"))), *sorted(str(jar) for jar in (built / "lib").glob("*.jar"))])


def _digest() -> str:
    """Names these sources."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    return [HERE / "pom.xml", *sorted(p for p in (HERE / "src").rglob("*") if p.is_file())]


def _build(cache: Path, built: Path) -> None:
    """Puts the jars under their final name only when all of them are there."""
    program("javac")
    maven = program("mvn")
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as folder:
        project = Path(folder) / "project"
        shutil.copytree(HERE, project, ignore=shutil.ignore_patterns("target"))
        command = [str(maven), "-B", "-ntp", "-q", "package"]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=BUILD_S)
        assert "COMPILATION ERROR" not in done.stdout, done.stdout
        if done.returncode:
            missing(f"HAPI FHIR from Maven ({done.stdout.strip().splitlines()[:1]})")
        (project / "target").rename(built)
