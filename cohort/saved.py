"""A lake in an S3-compatible store as a folder, while others write and publish, and back: what a backup has of it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from bridge.errors import ConfigError, SinkUnavailable
from cohort.generation import names_of
from cohort.store import Store
from cohort.store.files import SENT_AT_ONCE, digest
from cohort.store.local import LocalStore, sync

OBJECTS = ("CURRENT", "files", "generations", "names", "delta", "loads", "parked")
"""What of a lake is in its store: its folders, and one object."""

TRIES = 5


def save(store: Store, folder: Path) -> int:
    """Every object that the newest generation, those that are kept under a name, and the delta need: a lake in a
    folder, on disk when this returns. Result: how many objects.

    The delta comes first: what is published and removed before it is read is in the generation that is read after it;
    what is in both is the same once more.
    Raises  SinkUnavailable  the store does not answer, a file is damaged, or publishers were always faster
    """
    target = LocalStore(folder)
    for entry in store.list("delta"):
        with suppress(FileNotFoundError):  # published meanwhile
            _save_delta(store, target, entry.key, folder)
    for _ in range(TRIES):
        try:
            current = _generation(store, target, "CURRENT", folder)
            break
        except FileNotFoundError:  # another generation is the newest by now, and its files went
            continue
    else:
        raise SinkUnavailable("lake: generations went faster than they could be saved: back up again")
    for entry in store.list("names"):
        with suppress(FileNotFoundError):  # forgotten meanwhile
            _generation(store, target, entry.key, folder)
    for entry in store.list("parked"):
        with suppress(FileNotFoundError):
            target.put(entry.key, store.read(entry.key)[0])
    if current:
        target.put("CURRENT", current)
    return sum(len(target.list(kind)) for kind in OBJECTS[1:])


def put_back(store: Store, folder: Path) -> int:
    """What `save` made, or a lake that was in a folder, in a store that has no lake yet. Result: how many objects.

    Raises  ConfigError  there is a lake already, or the store cannot hold one; SinkUnavailable as `save`
    """
    if any(store.list(kind) for kind in ("generations", "delta", "files")):
        raise ConfigError("lake.url: there is a lake already: name another prefix, or empty this one")
    store.check()
    source, sent = LocalStore(folder), 0
    for kind in ("files", "loads", "parked", "generations", "names"):
        sent += _send(store, folder, [entry.key for entry in source.list(kind)])
    if (folder / "CURRENT").exists() and not store.replace("CURRENT", source.read("CURRENT")[0], ""):
        raise ConfigError("lake.url: somebody else made a lake there meanwhile: name another prefix")
    return sent + _send(store, folder, [entry.key for entry in source.list("delta")])


def _save_delta(store: Store, target: LocalStore, key: str, folder: Path) -> None:
    content = store.read(key)[0]
    if key.endswith(".load"):
        parts: dict[str, list[str]] = {}
        for part in orjson.loads(content):
            parts.setdefault(part.rpartition("/")[0], []).append(part)
        for place, keys in parts.items():
            _fetch(store, keys, folder / place)
    target.put(key, content)


def _generation(store: Store, target: LocalStore, pointer: str, folder: Path) -> bytes:
    """Saves the generation that a pointer names; what the pointer says, b"" before the first generation. Raises
    FileNotFoundError when its files went meanwhile."""
    try:
        said = store.read(pointer)[0]
    except FileNotFoundError:
        return b""
    manifest = f"generations/{said.decode('ascii').strip()}.json"
    content = store.read(manifest)[0]
    _fetch(store, [f"files/{name}" for name in sorted(names_of(content))], folder / "files")
    target.put(manifest, content)
    if pointer != "CURRENT":
        target.put(pointer, said)
    return said


def _fetch(store: Store, keys: Iterable[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    missing = [key for key in keys if not (folder / key.rpartition("/")[2]).exists()]
    with TemporaryDirectory(dir=folder, prefix="incoming-") as incoming:
        for path in store.fetch(missing, Path(incoming)):
            if digest(path) != path.stem.rpartition("-")[2]:
                raise SinkUnavailable(f"lake: the file {path.name} does not have the content that its name says")
            sync(path)
            path.replace(folder / path.name)
    sync(folder)


def _send(store: Store, folder: Path, keys: list[str]) -> int:
    with ThreadPoolExecutor(SENT_AT_ONCE) as pool:
        list(pool.map(lambda key: store.send(folder / key, key), keys))
    return len(keys)
