"""Where a lake is, as people write it: a folder, or s3://BUCKET/PREFIX."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bridge.config import Settings, lake_cache
from bridge.errors import ConfigError
from cohort.store import Store
from cohort.store.files import CachedFiles, Files, LocalFiles
from cohort.store.local import LocalStore

CACHE_BYTES = 20_000_000_000

_S3 = re.compile(
    r"^s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/(?!\.{1,2}(/|$))[A-Za-z0-9!_.*'()=-]+)*)/?$"
)
_ABANDONED_S = 86_400.0


@dataclass(frozen=True)
class Place:
    """Where a lake's objects are kept, its files on this machine, and a folder of this machine for work on it."""

    url: str
    store: Store
    files: Files
    work: Path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that goes at the end; those that a kill left are removed after a day."""
        for left in (*self.work.glob("scratch-*"), *self.work.glob("incoming-*")):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self.work, prefix="scratch-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)


@dataclass(frozen=True)
class Access:
    """How an S3-compatible store is reached. What is empty is found as AWS's own tools find it (`cohort.store.s3`)."""

    endpoint: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    cache: Path | None = None
    cache_bytes: int = CACHE_BYTES


def in_folder(root: Path) -> Place:
    """A lake in a folder."""
    store = LocalStore(root)
    root.mkdir(parents=True, exist_ok=True)
    return Place(str(root), store, LocalFiles(root / "files"), root)


def in_bucket(url: str, access: Access | None = None) -> Place:
    """A lake in an S3-compatible store. Raises ConfigError for another address, and without the extra `s3`."""
    match = _S3.match(url)
    if match is None:
        raise ConfigError("lake: not an address of a bucket; allowed: s3://BUCKET/PREFIX")
    try:
        from cohort.store.s3 import Bucket, S3Store
    except ImportError:
        raise ConfigError("boto3 is not installed: pip install 'imaging-bridge[s3]'") from None
    how = access or Access()
    where = Bucket(
        match["bucket"], match["prefix"].strip("/"), how.endpoint, how.region, how.access_key_id, how.secret_access_key
    )
    work = how.cache or lake_cache() / hashlib.sha256(f"{how.endpoint} {url.rstrip('/')}".encode()).hexdigest()[:16]
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = S3Store(where)
    return Place(url.rstrip("/"), store, CachedFiles(store, work / "files", how.cache_bytes), work)


def access_of(settings: Settings) -> Access:
    """How the settings `[lake]` say that buckets are reached."""
    lake = settings.lake
    return Access(
        endpoint=lake.endpoint,
        region=lake.region,
        access_key_id=lake.access_key_id,
        secret_access_key=lake.secret_access_key.get_secret_value(),
        cache=settings.lake_cache if lake.url else None,
        cache_bytes=int(lake.cache_gb * 1e9),
    )


def place_of(settings: Settings) -> Place:
    """The bridge's lake. Raises ConfigError as `in_bucket` does."""
    return in_bucket(settings.lake.url, access_of(settings)) if settings.lake.url else in_folder(settings.lake_dir)


def place(where: str | Path, access: Access | None = None) -> Place | None:
    """The lake that a person names; None for a folder that does not exist. Raises ConfigError as `in_bucket` does."""
    if is_bucket(where):
        return in_bucket(str(where), access)
    return in_folder(Path(where)) if Path(where).is_dir() else None


def is_bucket(where: str | Path) -> bool:
    """Whether it names a lake in an S3-compatible store, not a folder."""
    return isinstance(where, str) and where.lower().startswith("s3:")
