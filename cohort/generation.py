"""Generations: immutable states of the lake, each with its manifest; the newest, and those kept under a name."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from bridge.errors import ConfigError, InvalidQuery, SinkUnavailable
from cohort.kinds import BY_CODE
from cohort.layers import Layer, layer, names, names_in_tables, names_read
from cohort.schema import Column, catalogue
from cohort.store import Entry, Store
from cohort.store.files import Files, digest_of

FORMAT = 2
KEPT_GENERATIONS = 5
KEPT_SECONDS = 900.0
"""Younger generations are kept whatever their number: someone may be reading them."""

_DAMAGED = "lake: which generation is the newest, or what it holds, is damaged: bridge verify --repair"

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


def _they_are(_names: Iterable[str]) -> None:
    """The files of a folder."""


@dataclass(frozen=True)
class Generation:
    """One immutable state of the lake. Its id is what a result cites. `local`: all its files are on this machine."""

    id: str
    created: str
    tables: Mapping[str, Table]
    present: Callable[[Iterable[str]], None] = field(default=_they_are, compare=False, repr=False)
    local: bool = field(default=True, compare=False)

    @property
    def column_types(self) -> dict[str, dict[str, str]]:
        """table → column → DuckDB type, as its files have them: what a question of it is compiled for."""
        return {name: {c.name: c.type for c in table.columns} for name, table in self.tables.items()}

    def fetch(self, tables: Collection[str], *, copies: bool = False) -> None:
        """Makes the files of these tables be on this machine: Parquet, or with `copies` what DuckDB reads in its place.
        Raises InvalidQuery when they are no longer kept."""
        layers = [one for name in tables for one in self.tables[name].layers]
        try:
            self.present(names_read(layers) if copies else names(layers))
        except FileNotFoundError:
            raise InvalidQuery(f"generation {self.id}: it is no longer kept; ask the newest") from None


@dataclass(frozen=True)
class Head:
    """The newest generation, as one who publishes the next finds it. Before the first, `id` is "".

    Result  `tables` as the manifest has them; `tag` of CURRENT, which changes with it
    """

    id: str
    tag: str
    tables: Mapping[str, Any]

    @property
    def next_id(self) -> str:
        return f"g{int(self.id[1:]) + 1 if self.id else 1:06}"


@dataclass(frozen=True)
class Listed:
    """A generation that can be asked: id, when it was made, the names it is kept under, whether it is the newest."""

    id: str
    created: str
    names: tuple[str, ...]
    current: bool


class Generations:
    """The manifests of a lake. A generation is published when CURRENT names it.

    Who publishes creates the manifest of the next id, which one publisher alone can; then CURRENT follows. One who
    finds a manifest there moves CURRENT for him who created it: a publisher that was killed in between holds up nobody.
    """

    def __init__(self, store: Store, files: Files) -> None:
        self._store, self._files = store, files
        self._known: dict[str, frozenset[str]] = {}

    def current(self) -> Generation | None:
        """The newest generation, or None before the first."""
        id_ = self._current()[0]
        return self._generation(id_) if id_ else None

    def find(self, wanted: str) -> Generation:
        """A generation by its id or its name. Raises InvalidQuery when it is not (or no longer) there."""
        if _ID.match(wanted):
            current = self._current()[0]
            if not current or _number(wanted) > _number(current):
                raise InvalidQuery(f"generation {wanted}: not there yet; `cohort generations list` shows what is")
            return self._generation(wanted)
        if not _NAME.match(wanted):
            raise InvalidQuery("generation: found neither an id (g000001) nor a name of letters, digits, _ . -")
        kept = self._kept_as(wanted)
        if kept is None:
            raise InvalidQuery(
                f"generation {wanted}: none is kept under this name; `cohort generations list` shows them"
            )
        return self._generation(kept)

    def list(self) -> list[Listed]:
        """Every generation that can be asked, newest first."""
        named, current = self._named(), self._current()[0]
        published = [e for e in self._manifests() if current and _number(_id_of(e)) <= _number(current)]
        found = [_read(self._store.read(entry.key)[0]) for entry in published]
        return [
            Listed(m["generation"], m["created"], tuple(named.get(m["generation"], ())), m["generation"] == current)
            for m in reversed(found)
        ]

    def keep(self, name: str, wanted: str) -> str:
        """Keeps a generation under a name until it is forgotten. Result: its id. Raises InvalidQuery."""
        if not _NAME.match(name) or _ID.match(name):
            raise InvalidQuery("name: letters, digits, _ . - (a letter first, 64 at most), and no generation's id")
        id_ = self.find(wanted).id
        if not self._store.create(f"names/{name}", id_.encode()) and self._kept_as(name) != id_:
            raise InvalidQuery(f"name {name}: another generation is kept under it; forget it first")
        return id_

    def forget(self, name: str) -> None:
        """Takes the name away; the generation goes when it is old. Raises InvalidQuery when there is no such name."""
        if not _NAME.match(name) or self._kept_as(name) is None:
            raise InvalidQuery("name: no generation is kept under it; `cohort generations list` shows them")
        self._store.delete([f"names/{name}"])

    def head(self) -> Head:
        """What the next generation is made from. Raises ConfigError when another version made it, SinkUnavailable when
        it is damaged."""
        id_, tag = self._current()
        if not id_:
            return Head("", "", {})
        content = self._store.read(_manifest(id_))[0]
        manifest = _read(content)
        if manifest.get("format") != FORMAT:
            raise ConfigError("lake: made by another version: move its folder away; load and deliver into a new one")
        if manifest_problem(content):
            raise SinkUnavailable(_DAMAGED)
        return Head(id_, tag, manifest["tables"])

    def publish(self, head: Head, created: str, tables: Mapping[str, Any], at: Callable[[str], None]) -> bool:
        """Makes these tables the generation after `head`. False when another publisher was faster: look again.

        Files must be durable before.
        """
        id_ = head.next_id
        manifest = sealed({"format": FORMAT, "generation": id_, "created": created, "tables": tables})
        if self._current() != (head.id, head.tag):
            return False
        mine = self._store.create(_manifest(id_), manifest)
        if mine:
            at("manifest written")
        elif not self._there(id_):
            return False
        moved = self._store.replace("CURRENT", id_.encode(), head.tag) or self._current()[0] == id_
        if mine and moved:
            at("published")
        return mine and moved

    def forget_old(self, now: float) -> None:
        """Removes manifests past the number and age that are kept and without a name, then files no manifest names."""
        named, manifests = set(self._named()), self._manifests()
        old = [
            entry.key
            for entry in manifests[:-KEPT_GENERATIONS]
            if _id_of(entry) not in named and now - entry.modified > KEPT_SECONDS
        ]
        self._store.delete(old)
        self._known = {_id_of(e): self._files_of(_id_of(e)) for e in manifests if e.key not in old}
        used, settle_s = frozenset[str]().union(*self._known.values()), self._store.settle_s
        self._store.delete(
            [
                entry.key
                for entry in self._store.list("files")
                if entry.key.rpartition("/")[2] not in used and not (settle_s and now - entry.modified < settle_s)
            ]
        )

    def step_back(self, created: str) -> tuple[builtins.list[str], str]:
        """Removes damaged manifests. Where the newest is one, what the newest whole generation holds becomes the next
        one: no id is ever given twice. A damaged CURRENT names the newest generation again.

        Result  the keys of what was damaged; when the generation gone back to was made, "" if no content is lost
        """
        content = {entry.key: self._store.read(entry.key)[0] for entry in self._manifests()}
        if not content:
            return [], ""
        damaged = [key for key in content if manifest_problem(content[key])]
        whole = [orjson.loads(content[key]) for key in content if key not in damaged]
        newest, since = next(reversed(content)), ""
        if newest in damaged:
            back: Any = whole[-1] if whole else {"created": created, "tables": {}}
            id_, since = f"g{_number(newest.rpartition('/')[2].removesuffix('.json')) + 1:06}", str(back["created"])
            made = {"format": FORMAT, "generation": id_, "created": created, "tables": back["tables"]}
            self._store.create(_manifest(id_), sealed(made))
            newest = _manifest(id_)
        current = newest.rpartition("/")[2].removesuffix(".json").encode()
        try:
            was, tag = self._store.read("CURRENT")
        except FileNotFoundError:
            was, tag = b"", ""
        if was != current:
            damaged += [] if since else ["CURRENT"]
            self._store.replace("CURRENT", current, tag)
        self._store.delete([key for key in damaged if key != "CURRENT"])
        return damaged, since

    def forget_damaged(self, damaged: Collection[str]) -> builtins.list[str]:
        """Removes the manifests that name one of these files, but the newest and those kept under a name. Result: the
        names of kept ones among them."""
        named, current = self._named(), self._current()[0]
        hurt = [e for e in self._manifests() if _id_of(e) != current and self._files_of(_id_of(e)) & set(damaged)]
        self._store.delete([entry.key for entry in hurt if _id_of(entry) not in named])
        return sorted(name for entry in hurt for name in named.get(_id_of(entry), ()))

    def _files_of(self, id_: str) -> frozenset[str]:
        """What a manifest names. It never changes."""
        if id_ in self._known:
            return self._known[id_]
        content = self._store.read(_manifest(id_))[0]
        if manifest_problem(content):
            raise SinkUnavailable(_DAMAGED)
        return names_of(content)

    def _manifests(self) -> builtins.list[Entry]:
        """The oldest first."""
        found = (entry for entry in self._store.list("generations") if _ID.match(_id_of(entry)))
        return sorted(found, key=lambda entry: _number(_id_of(entry)))

    def _named(self) -> dict[str, builtins.list[str]]:
        """generation → the names it is kept under."""
        found: dict[str, builtins.list[str]] = {}
        for entry in self._store.list("names"):
            name = entry.key.rpartition("/")[2]
            if _NAME.match(name) and (kept := self._kept_as(name)):
                found.setdefault(kept, []).append(name)
        return found

    def _kept_as(self, name: str) -> str | None:
        try:
            return self._store.read(f"names/{name}")[0].decode("ascii").strip()
        except FileNotFoundError:
            return None

    def _current(self) -> tuple[str, str]:
        try:
            content, tag = self._store.read("CURRENT")
        except FileNotFoundError:
            return "", ""
        id_ = content.decode("ascii", "replace").strip()
        if not _ID.match(id_):
            raise SinkUnavailable(_DAMAGED)
        return id_, tag

    def _there(self, id_: str) -> bool:
        try:
            self._store.read(_manifest(id_))
        except FileNotFoundError:
            return False
        return True

    def _generation(self, id_: str) -> Generation:
        try:
            manifest = _read(self._store.read(_manifest(id_))[0])
        except FileNotFoundError:
            raise InvalidQuery(f"generation {id_} is not kept (any more)") from None
        if manifest.get("format") != FORMAT:
            raise InvalidQuery(f"generation {id_}: made by another version of this program")
        return Generation(
            manifest["generation"],
            manifest["created"],
            {n: self._table(n, schema.columns, manifest) for n, schema in catalogue().items() if _whole(n, manifest)},
            self._files.present,
            self._files.local,
        )

    def _table(self, name: str, columns: tuple[Column, ...], manifest: Any) -> Table:
        """As its files have it: a generation from before a column came does not show the column."""
        held = manifest["tables"].get(name)
        if held is None:
            return Table(name, (), columns)
        layers = tuple(layer(self._files.folder, entry) for entry in held["layers"])
        return Table(name, layers, tuple(c for c in columns if c.name in held["columns"]))


_DIGEST = b',"digest":"'
_ELEMENTS = {"format", "generation", "created", "tables"}


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as it is kept: its last element, `digest`, is a digest of all before it."""
    plain = orjson.dumps(manifest)
    return plain[:-1] + _DIGEST + digest_of(plain).encode() + b'"}'


def names_of(manifest: bytes) -> frozenset[str]:
    """The files that a manifest names."""
    return names_in_tables(orjson.loads(manifest)["tables"])


def manifest_problem(content: bytes) -> str:
    """Why a manifest is not what was published, "" when it is, or was by a version that kept no digest."""
    try:
        elements = set(orjson.loads(content))
    except (orjson.JSONDecodeError, TypeError):
        return "it is no JSON object"
    if elements == _ELEMENTS:
        return ""
    plain, _, said = content.rpartition(_DIGEST)
    fine = elements == {*_ELEMENTS, "digest"} and said == digest_of(plain + b"}").encode() + b'"}'
    return "" if fine else "its content is not what its digest says"


def _read(manifest: bytes) -> Any:
    """Raises SinkUnavailable when it is no JSON object."""
    try:
        found = orjson.loads(manifest)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise SinkUnavailable(_DAMAGED)
    return found


def _whole(table: str, manifest: Any) -> bool:
    """False for a table of the rows of another, in a generation from before there was one."""
    held = manifest["tables"]
    return not any(table == copy and copy not in held and name in held for name, copy in BY_CODE.items())


def _manifest(id_: str) -> str:
    return f"generations/{id_}.json"


def _id_of(manifest: Entry) -> str:
    return manifest.key.rpartition("/")[2].removesuffix(".json")


def _number(id_: str) -> int:
    return int(id_[1:])
