"""A PostgreSQL of the tests' own, on loopback, with an empty database for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.services.peers import free_port, missing


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else missing("PostgreSQL")


class PostgreSql:
    """One server; as root it runs as the user postgres, which it insists on. Only a `durable` one waits for its disk.

    `url` is the address of its maintenance database.
    """

    def __init__(self, folder: Path, durable: bool) -> None:
        binaries = _binaries()
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as_user:
            shutil.chown(folder, "postgres")
        port, self._folder, self._data = free_port(), folder, folder / "data"
        self.url = f"postgresql+psycopg://tests@127.0.0.1:{port}/postgres"
        self._run(str(binaries / "initdb"), "-D", str(self._data), "-A", "trust", "-U", "tests")
        self._options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        self._options += "" if durable else " -c fsync=off"
        self._control = [str(binaries / "pg_ctl"), "-D", str(self._data), "-w", "-l", str(folder / "log")]

    def start(self) -> None:
        self._run(*self._control, "-o", self._options, "start")

    def stop(self) -> None:
        """Ends it as a crash does: every connection at once, nothing written out."""
        self._run(*self._control, "-m", "immediate", "stop")

    def _run(self, *command: str) -> None:
        subprocess.run([*self._as_user, *command], check=True, capture_output=True, cwd=self._folder)


@contextmanager
def a_postgresql(durable: bool = False) -> Iterator[PostgreSql]:
    """A server, until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server = PostgreSql(folder, durable)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_postgresql(durable: bool = False) -> Iterator[str]:
    """The address of its maintenance database."""
    with a_postgresql(durable) as server:
        yield server.url


def fresh_database(server: str, name: str) -> str:
    """The address of a new, empty database."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return server.rpartition("/")[0] + f"/{name}"
