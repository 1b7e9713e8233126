"""A lake in an S3-compatible store. Objects are whole or not there, as S3 has it; publishing rests on its conditional
writes (If-None-Match, If-Match), which `check` tries."""

from __future__ import annotations

import builtins
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from bridge.errors import ConfigError, SinkUnavailable
from bridge.web.answers import loopback
from cohort.store import Entry

SIDE_BY_SIDE = 8
"""Objects asked for, sent or deleted at the same time."""

CONNECT_S, SILENCE_S, TRIES = 10, 60, 4

Done = TypeVar("Done")

for _name in ("boto3", "botocore", "s3transfer", "urllib3"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # their debug lines quote requests


@dataclass(frozen=True)
class Bucket:
    """Where the lake is. What is empty is found as AWS's own tools find it: environment, profile, role."""

    name: str
    prefix: str
    endpoint: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)


class S3Store:
    """Objects of a bucket under a prefix."""

    settle_s = 86_400.0

    def __init__(self, bucket: Bucket) -> None:
        """Raises ConfigError for an address that is neither https nor of this machine, and without credentials."""
        self._bucket, self._prefix = bucket.name, f"{bucket.prefix}/" if bucket.prefix else ""
        self._client = _client(bucket)
        self._transfer = TransferConfig(max_concurrency=4)

    def check(self) -> None:
        key = f"probe/{uuid4().hex}"
        try:
            made, again = self.create(key, b"1"), self.create(key, b"2")
            tag = self.read(key)[1]
            changed, late = self.replace(key, b"3", tag), self.replace(key, b"4", tag)
            if (made, again, changed, late, self.read(key)[0]) != (True, False, True, False, b"3"):
                raise ConfigError(
                    "lake: the store does not honour If-None-Match and If-Match on PutObject: publishing needs them; "
                    "use a store, or a version of it, that does"
                )
        except FileNotFoundError:
            raise ConfigError("lake: the store does not give back what was written a moment ago") from None
        finally:
            self.delete([key])

    def read(self, key: str) -> tuple[bytes, str]:
        with _told("GetObject"):
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            return found["Body"].read(), found["ETag"]

    def list(self, folder: str) -> list[Entry]:
        asked = {"Bucket": self._bucket, "Prefix": f"{self._prefix}{folder}/"}
        with _told("ListObjectsV2"):
            return [
                Entry(one["Key"].removeprefix(self._prefix), one["Size"], one["LastModified"].timestamp())
                for page in self._client.get_paginator("list_objects_v2").paginate(**asked)
                for one in page.get("Contents", ())
            ]

    def put(self, key: str, content: bytes) -> None:
        self._put(key, content)

    def create(self, key: str, content: bytes) -> bool:
        return self._put(key, content, IfNoneMatch="*")

    def replace(self, key: str, content: bytes, tag: str) -> bool:
        return self._put(key, content, IfMatch=tag) if tag else self.create(key, content)

    def delete(self, keys: Iterable[str]) -> None:
        self._each(self._delete, keys)

    def send(self, path: Path, key: str) -> None:
        with _told("PutObject"):
            self._client.upload_file(str(path), self._bucket, self._prefix + key, Config=self._transfer)

    def fetch(self, keys: Iterable[str], folder: Path) -> Sequence[Path]:
        return self._each(lambda key: self._fetch(key, folder), keys)

    def sweep(self, before: float) -> None:
        with _told("AbortMultipartUpload"):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            ):
                for one in page.get("Uploads", ()):
                    if one["Initiated"].timestamp() < before:
                        named = {"Key": one["Key"], "UploadId": one["UploadId"]}
                        self._client.abort_multipart_upload(Bucket=self._bucket, **named)

    def _fetch(self, key: str, folder: Path) -> Path:
        path = folder / key.rpartition("/")[2]
        with _told("GetObject"):
            self._client.download_file(self._bucket, self._prefix + key, str(path), Config=self._transfer)
        return path

    def _put(self, key: str, content: bytes, **condition: str) -> bool:
        """False where the condition does not hold. After an answer that was lost, that may be our own doing."""
        try:
            with _told("PutObject", conditional=bool(condition)):
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=content, **condition)
        except (_Refused, FileNotFoundError):  # 404: If-Match, and nothing is there
            return False
        return True

    def _delete(self, key: str) -> None:
        with _told("DeleteObject"):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    @staticmethod
    def _each(do: Callable[[str], Done], keys: Iterable[str]) -> builtins.list[Done]:
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            return list(pool.map(do, keys))


class _Refused(Exception):
    """A condition did not hold."""


def _client(bucket: Bucket) -> Any:
    settings = Config(
        connect_timeout=CONNECT_S,
        read_timeout=SILENCE_S,
        max_pool_connections=4 * SIDE_BY_SIDE,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        # The signature covers the content: every store knows it, unlike S3's newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": True, "addressing_style": "path" if bucket.endpoint else "auto"},
    )
    try:
        session = boto3.session.Session(
            aws_access_key_id=bucket.access_key_id or None,
            aws_secret_access_key=bucket.secret_access_key or None,
            region_name=bucket.region or None,
        )
        client = session.client("s3", endpoint_url=bucket.endpoint or None, config=settings)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"lake: the S3 settings cannot be used ({type(error).__name__})") from None
    address = client.meta.endpoint_url
    if not address.startswith("https:") and not loopback(address):
        raise ConfigError("lake: its endpoint is reached unencrypted: use https://, http:// is for this machine alone")
    return client


@contextmanager
def _told(operation: str, *, conditional: bool = False) -> Iterator[None]:
    """boto3's exceptions as ours. Only the store's error code is taken into a message, never its text."""
    try:
        yield
    except ClientError as error:
        code, status = _said(error)
        if code == "NoSuchBucket":
            raise SinkUnavailable(
                "lake: the store has no such bucket: make it, or correct the lake's address"
            ) from None
        if status == 404:
            raise FileNotFoundError(operation) from None
        if conditional and status in (409, 412):
            raise _Refused from None
        raise SinkUnavailable(f"lake: the store answered {operation} with {code} (HTTP {status})") from None
    except NoCredentialsError:
        raise SinkUnavailable(
            "lake: no S3 credentials: set access_key_id and secret_access_key in [lake], or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or a profile"
        ) from None
    except (BotoCoreError, Boto3Error) as error:
        raise SinkUnavailable(f"lake: the store cannot be reached for {operation} ({type(error).__name__})") from None


def _said(error: ClientError) -> tuple[str, int]:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return (code if re.fullmatch(r"[A-Za-z0-9.]{1,64}", code) else "an error"), int(status)
