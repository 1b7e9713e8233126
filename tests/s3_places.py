"""Buckets for tests: empty ones of a store that runs on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
from moto.server import ThreadedMotoServer

from cohort.store.place import Access, Place, in_bucket

REGION, KEY, SECRET = "us-east-1", "tests", "correct-horse-battery"


@dataclass(frozen=True)
class S3Peer:
    """A store: its address, and credentials that may do everything."""

    endpoint: str

    def bucket(self) -> str:
        """The address of a lake in a bucket that nobody else uses."""
        name = f"lake-{uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}/the/lake"

    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint, region_name=REGION, **self.credentials())

    def credentials(self) -> dict[str, str]:
        return {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}

    def environment(self) -> dict[str, str]:
        """As AWS's own tools read it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint, "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }  # fmt: skip

    def place(self, url: str, cache: Path, cache_bytes: int = 10**9) -> Place:
        return in_bucket(url, Access(self.endpoint, REGION, KEY, SECRET, cache, cache_bytes))


@contextmanager
def running_moto() -> Iterator[S3Peer]:
    """moto's S3, in this process: conditional writes are right, but not of several requests at the same instant."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Peer(f"http://{host}:{port}")
    finally:
        server.stop()
