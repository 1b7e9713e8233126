"""Generations: immutable states of the lake, each with its manifest; the newest, and those kept under a name."""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bridge.errors import ConfigError, InvalidQuery
from cohort.layers import Layer, layer
from cohort.schema import Column, catalogue

FORMAT = 2
KEPT_GENERATIONS = 5
KEPT_SECONDS = 900.0
"""Younger generations are kept whatever their number: someone may be reading them."""

_NAME = re.compile(r"^(?!.*\.part$)[A-Za-z][A-Za-z0-9_.-]{0,63}$")
_ID = re.compile(r"^g\d{6,18}$")


@dataclass(frozen=True)
class Table:
    """One table of a generation: the files it is made of, its rows, its columns."""

    name: str
    layers: tuple[Layer, ...]
    columns: tuple[Column, ...]

    @property
    def rows(self) -> int:
        return sum(one.live for one in self.layers)


@dataclass(frozen=True)
class Generation:
    """One immutable state of the lake. Its id is what a result cites."""

    id: str
    created: str
    tables: Mapping[str, Table]


@dataclass(frozen=True)
class Listed:
    """A generation that can be asked: id, when it was made, the names it is kept under, whether it is the newest."""

    id: str
    created: str
    names: tuple[str, ...]
    current: bool


class Generations:
    """The manifests of a lake folder. Changes are made by one process at a time (`cohort.lake` holds the lock)."""

    def __init__(self, root: Path) -> None:
        self._files, self._manifests, self._names = root / "files", root / "generations", root / "names"
        self._current, self._parked = root / "CURRENT", root / "parked"
        for folder in (self._files, self._manifests, self._names, self._parked):
            folder.mkdir(parents=True, exist_ok=True)

    def current(self) -> Generation | None:
        """The newest generation, or None before the first."""
        id_ = self._current_id()
        return self._generation(id_) if id_ else None

    def find(self, wanted: str) -> Generation:
        """A generation by its id or its name. Raises InvalidQuery when it is not (or no longer) there."""
        if _ID.match(wanted):
            return self._generation(wanted)
        if not _NAME.match(wanted):
            raise InvalidQuery("generation: found neither an id (g000001) nor a name of letters, digits, _ . -")
        try:
            return self._generation((self._names / wanted).read_text("ascii").strip())
        except FileNotFoundError:
            raise InvalidQuery(
                f"generation {wanted}: none is kept under this name; `cohort generations list` shows them"
            ) from None

    def list(self) -> list[Listed]:
        """Every generation that can be asked, newest first."""
        names = self._named()
        current = self._current_id()
        found = [orjson.loads(p.read_bytes()) for p in sorted(self._manifests.glob("*.json"), reverse=True)]
        return [
            Listed(m["generation"], m["created"], tuple(names.get(m["generation"], ())), m["generation"] == current)
            for m in found
        ]

    def keep(self, name: str, wanted: str) -> str:
        """Keeps a generation under a name until it is forgotten. Result: its id. Raises InvalidQuery."""
        if not _NAME.match(name) or _ID.match(name):
            raise InvalidQuery("name: letters, digits, _ . - (a letter first, 64 at most), and no generation's id")
        id_ = self.find(wanted).id
        if (self._names / name).exists() and (self._names / name).read_text("ascii").strip() != id_:
            raise InvalidQuery(f"name {name}: another generation is kept under it; forget it first")
        write(self._names / name, id_.encode())
        return id_

    def forget(self, name: str) -> None:
        """Takes the name away; the generation goes when it is old. Raises InvalidQuery when there is no such name."""
        if not _NAME.match(name) or not (self._names / name).exists():
            raise InvalidQuery("name: no generation is kept under it; `cohort generations list` shows them")
        (self._names / name).unlink()

    def manifest(self) -> Any:
        """The newest manifest, or None. Raises ConfigError when another version of this program made it."""
        id_ = self._current_id()
        if id_ is None:
            return None
        manifest = orjson.loads((self._manifests / f"{id_}.json").read_bytes())
        if manifest.get("format") != FORMAT:
            raise ConfigError("lake: made by another version: move its folder away; load and deliver into a new one")
        return manifest

    def next_id(self) -> str:
        """The id of the next generation."""
        id_ = self._current_id()
        return f"g{int(id_[1:]) + 1 if id_ else 1:06}"

    def write_manifest(self, id_: str, created: str, tables: Mapping[str, Any]) -> None:
        """A manifest, on disk when this returns; not the current one yet."""
        manifest = {"format": FORMAT, "generation": id_, "created": created, "tables": tables}
        sync(self._files)
        write(self._manifests / f"{id_}.json", orjson.dumps(manifest))

    def make_current(self, id_: str) -> None:
        """The moment a generation is published."""
        write(self._current, id_.encode())

    def forget_old(self, now: float) -> None:
        """Removes manifests past the number and age that are kept and without a name, then files no manifest names."""
        named = set(self._named())
        manifests = sorted(self._manifests.glob("*.json"))
        for path in manifests[:-KEPT_GENERATIONS]:
            if path.stem not in named and now - path.stat().st_mtime > KEPT_SECONDS:
                path.unlink()
        used = set()
        for path in self._manifests.glob("*.json"):
            for table in orjson.loads(path.read_bytes())["tables"].values():
                used |= {entry[kind] for entry in table.get("layers", ()) for kind in ("file", "gone") if kind in entry}
        for file in self._files.iterdir():
            if file.name not in used:
                file.unlink(missing_ok=True)

    def _named(self) -> dict[str, builtins.list[str]]:
        """generation → the names it is kept under."""
        found: dict[str, builtins.list[str]] = {}
        for path in sorted(self._names.iterdir()):
            if _NAME.match(path.name):
                found.setdefault(path.read_text("ascii").strip(), []).append(path.name)
        return found

    def _current_id(self) -> str | None:
        try:
            return self._current.read_text("ascii").strip()
        except FileNotFoundError:
            return None

    def _generation(self, id_: str) -> Generation:
        try:
            manifest = orjson.loads((self._manifests / f"{id_}.json").read_bytes())
        except FileNotFoundError:
            raise InvalidQuery(f"generation {id_} is not kept (any more)") from None
        if manifest.get("format") != FORMAT:
            raise InvalidQuery(f"generation {id_}: made by another version of this program")
        return Generation(
            manifest["generation"],
            manifest["created"],
            {name: self._table(name, schema.columns, manifest) for name, schema in catalogue().items()},
        )

    def _table(self, name: str, columns: tuple[Column, ...], manifest: Any) -> Table:
        """As its files have it: a generation from before a column came does not show the column."""
        held = manifest["tables"].get(name)
        if held is None:
            return Table(name, (), columns)
        layers = tuple(layer(self._files, entry) for entry in held["layers"])
        return Table(name, layers, tuple(c for c in columns if c.name in held["columns"]))


def write(path: Path, content: bytes) -> None:
    """A whole file or none, on disk when this returns."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """The folder's entries on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
