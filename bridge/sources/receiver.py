"""A C-STORE receiver: bytes on disk and fsynced before success is answered; its spool is its archive."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from bridge import __version__
from bridge.errors import ConfigError, InvalidDicomValue, InvalidFile, Unavailable
from bridge.model import IndexedFile, Rejection, WadoEndpoint
from bridge.ports import ChangePage, FileIndex, StudyHeaders
from bridge.sources.folder import Folder
from bridge.sources.part10 import read_headers
from bridge.translate.headers import Headers
from bridge.translate.uids import checked_uid

log = logging.getLogger("bridge.receiver")

SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
IMPLEMENTATION_UID = UID("2.25.148187237184310236424206226377838563984")
RESCAN_S = 300.0
_TIMEOUT_S = 60
_MAXIMUM_PDU = 131_072
_REFUSED_KEPT = 1000

for _name in ("pynetdicom", "pydicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # their messages quote identifiers


class Receiver:
    """A C-STORE and C-ECHO SCP on plain pynetdicom. `store` makes a page of changes durable."""

    endpoint: WadoEndpoint | None = None
    verify_s = 0.0

    def __init__(
        self,
        name: str,
        spool: Path,
        index: FileIndex,
        store: Callable[[ChangePage], None],
        clock: Callable[[], float],
        *,
        ae_title: str = "BRIDGE",
        host: str = "127.0.0.1",
        port: int = 11112,
        maximum_associations: int = 16,
        maximum_object_bytes: int = 2_147_483_648,
        minimum_free_bytes: int = 1_073_741_824,
        sweep_s: float = 3600.0,
        at: Callable[[str], None] = lambda _stage: None,
    ) -> None:
        self.name, self.poll_s, self.sweep_s = name, RESCAN_S, sweep_s
        self._studies, self._incoming, self._refused = spool / "studies", spool / "incoming", spool / "refused"
        for folder in (self._studies, self._incoming, self._refused):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files = Folder(name, self._studies, index, clock, settle_s=0, allow_empty=True)
        self._store, self._at = store, at
        self._ae_title, self._host, self._port = ae_title, host, port
        self._maximum_associations = maximum_associations
        self._maximum_bytes, self._minimum_free = maximum_object_bytes, minimum_free_bytes
        self._server: Any = None

    def start(self) -> None:
        """Listens. Raises ConfigError when the address cannot be used."""
        for part in self._incoming.iterdir():
            part.unlink()  # never acknowledged: its sender still has it
        _config.UNRESTRICTED_STORAGE_SERVICE = True  # a private SOP class is a study's object like any other
        entity = AE(self._ae_title)
        entity.require_called_aet = True
        entity.maximum_associations = self._maximum_associations
        entity.maximum_pdu_size = _MAXIMUM_PDU
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT_S
        entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), AllTransferSyntaxes)
        try:
            self._server = entity.start_server(
                (self._host, self._port),
                block=False,
                evt_handlers=[(evt.EVT_C_STORE, self._on_store), (evt.EVT_CONN_OPEN, answer_at_once)],
            )
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise ConfigError(
                f"sources: {self.name}: port {self._port} on {self._host} {reason}. Choose another port or host"
            ) from None

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    def changes(self, position: str | None) -> ChangePage:
        """What lies in the spool and is not indexed yet: what a crash left between disk and database."""
        self._files.forget_what_is_known()
        return self._files.changes(position)

    def read(self, study_instance_uid: str) -> StudyHeaders:
        return self._files.read(study_instance_uid)

    def inventory(self) -> Iterator[tuple[str, int]]:
        return self._files.inventory()

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        return self._files.count(study_instance_uids)

    def _on_store(self, event: Any) -> int:
        """Status of one C-STORE (PS3.4 B.2.3). Success only once the object survives a crash."""
        part = self._incoming / f"{uuid4().hex}.part"
        try:
            content = self._content(event)
            if content is None:
                return OUT_OF_RESOURCES
            _write_durably(part, content)
            self._at("fsynced")
            return self._keep(event, part, hashlib.sha256(content).hexdigest())
        except OSError as error:
            log.error("receiver %s: an object could not be written: %s", self.name, error.strerror)
            return OUT_OF_RESOURCES
        except Unavailable as error:
            log.error("receiver %s: an object could not be taken: %s", self.name, error)
            return OUT_OF_RESOURCES
        finally:
            part.unlink(missing_ok=True)

    def _content(self, event: Any) -> bytes | None:
        """The Part 10 file of the object, its data set bit for bit as received; None when there is no room."""
        data_set: bytes = event.request.DataSet.getvalue()
        free = shutil.disk_usage(self._incoming).free
        if len(data_set) > self._maximum_bytes or free - len(data_set) < self._minimum_free:
            log.error("receiver %s: an object of %d bytes was refused: no room or too large", self.name, len(data_set))
            return None
        return _preamble(event) + data_set

    def _keep(self, event: Any, part: Path, digest: str) -> int:
        try:
            headers = read_headers(part)
            study = checked_uid(headers.text("StudyInstanceUID"), "StudyInstanceUID")
            instance = checked_uid(headers.text("SOPInstanceUID"), "SOPInstanceUID")
        except (InvalidFile, InvalidDicomValue) as error:
            self._refuse(part, digest, str(error))
            return CANNOT_UNDERSTAND
        if not _matches(event, headers):
            self._refuse(part, digest, "SOPClassUID or SOPInstanceUID: the data set has other than the C-STORE said")
            return MISMATCH
        path = self._place(study, instance, digest)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part.rename(path)
            for folder in (path.parent, path.parent.parent, self._studies):
                _sync_folder(folder)
        self._at("renamed")
        status = path.stat()
        relative = str(path.relative_to(self._studies))
        indexed = IndexedFile(relative, status.st_size, status.st_mtime_ns, study, instance)
        self._store(ChangePage(frozenset([study]), "", caught_up=True, files=(indexed,)))
        self._at("stored")
        return SUCCESS

    def _place(self, study: str, instance: str, digest: str) -> Path:
        """Names are digests: nothing that was received becomes part of a path."""
        folder, name = _digest(study), _digest(instance)
        return self._studies / folder[:2] / folder / f"{name}-{digest[:16]}.dcm"

    def _refuse(self, part: Path, digest: str, error: str) -> None:
        """Keeps what could not be used where a person finds it; the sender was told that it failed."""
        evidence: dict[str, str | int] = {"bytes": part.stat().st_size}
        if sum(1 for _ in self._refused.iterdir()) < _REFUSED_KEPT:
            part.rename(self._refused / f"{digest[:32]}.dcm")
            evidence["file"] = f"refused/{digest[:32]}.dcm"
        rejection = Rejection(f"refused/{digest[:32]}", error, evidence)
        self._store(ChangePage(frozenset(), "", caught_up=True, rejected=(rejection,)))


def answer_at_once(event: Any) -> None:
    """Small answers wait 40 ms for the peer's acknowledgement unless Nagle's algorithm is off; for SCU and SCP."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _matches(event: Any, headers: Headers) -> bool:
    said = str(event.request.AffectedSOPClassUID), str(event.request.AffectedSOPInstanceUID)
    return said == (headers.text("SOPClassUID"), headers.text("SOPInstanceUID"))


def _preamble(event: Any) -> bytes:
    """128 zero bytes, DICM and the file meta information (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = event.request.AffectedSOPClassUID
    meta.MediaStorageSOPInstanceUID = event.request.AffectedSOPInstanceUID
    meta.TransferSyntaxUID = event.context.transfer_syntax
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = f"BRIDGE_{__version__}"[:16]
    meta.SourceApplicationEntityTitle = event.assoc.requestor.ae_title
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return b"\0" * 128 + b"DICM" + bytes(buffer.getvalue())


def _write_durably(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:32]
