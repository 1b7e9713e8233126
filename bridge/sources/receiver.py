"""A C-STORE receiver: bytes on disk and fsynced before success is answered; its spool is its archive.

Connections wait in the lobby until they have asked for an association; each association has a thread. The spool is the
truth: the index is written behind it, in groups, and what a crash left out of it is found by the scan at the start.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from bridge.errors import ConfigError, SourceUnavailable, Unavailable, place
from bridge.model import IndexedFile, InstanceName, Rejection, WadoEndpoint
from bridge.ports import ChangePage, FileIndex, StudyHeaders
from bridge.sources.association import Association, Judgement, Origin, Peer, Received
from bridge.sources.folder import Folder
from bridge.sources.indexer import Indexer
from bridge.sources.lobby import BACKLOG, Lobby
from bridge.sources.manifest import Manifest, Verdict, forget
from bridge.sources.preflight import Scan, preflight
from bridge.sources.preflight import Verdict as Preflight
from bridge.sources.quota import Quota
from bridge.sources.retention import Retention
from bridge.sources.services import Request, Response, Service, Status
from bridge.sources.spool import Outcome, Spool, data_set_digest
from bridge.sources.upper_layer import Proposal, Reject, reject_pdu
from bridge.translate.headers import Headers
from bridge.translate.procedure_step import ProcedureStep

log = logging.getLogger("bridge.receiver")

RESCAN_S = 300.0
IDLE_S, OBJECT_S = 60.0, 900.0
SILENT_S, UNSPOKEN_S = 0.25, 0.05
"""When all associations are taken, one may be ended that has been silent for so long, or that has not said anything
for so long since it began: a newcomer waits no longer than that, however many peers only hold associations."""

INDEXED_S = 30.0
"""So long the index may lie behind the spool before a question about instances is put off."""

_FINDINGS_SHOWN = 20
_QUARANTINE = "quarantine/"
QUARANTINED_KEPT = 1000
QUARANTINED_BYTES = 10_737_418_240

_STORAGE = "1.2.840.10008.5.1.4."
_NOT_STORAGE = ("1.2.840.10008.5.1.4.1.2.", "1.2.840.10008.5.1.4.3", "1.2.840.10008.5.1.4.33", "1.2.840.10008.5.1.4.38")


class Receiver:
    """A C-STORE and C-ECHO SCP. `store` makes a page of changes durable.

    `calling_ae_titles` empty: callers on this machine only; `promiscuous`: any titles, from anywhere. `certificates`
    maps an AE title to the name or `sha256:` digest its client certificate must have. `route` may name another spool
    for an object, which is then not this source's; `services` answer what is neither C-ECHO nor C-STORE, and
    `procedure_steps` gives the steps that name a study; `retention` makes what looks after stored objects.
    """

    endpoint: WadoEndpoint | None = None
    verify_s = 0.0
    gives_objects = True
    idle_s, object_s = IDLE_S, OBJECT_S

    def __init__(
        self,
        name: str,
        spool: Path,
        index: FileIndex,
        store: Callable[[ChangePage], None],
        clock: Callable[[], float],
        *,
        ae_title: str = "BRIDGE",
        called_ae_titles: Sequence[str] = (),
        calling_ae_titles: Sequence[str] = (),
        promiscuous: bool = False,
        host: str = "127.0.0.1",
        port: int = 11112,
        tls: ssl.SSLContext | None = None,
        certificates: Mapping[str, str] | None = None,
        maximum_associations: int = 64,
        maximum_connections: int = 512,
        maximum_object_bytes: int = 2_147_483_648,
        minimum_free_bytes: int = 1_073_741_824,
        manifest_days: float = 90.0,
        sweep_s: float = 3600.0,
        services: Sequence[Service] = (),
        procedure_steps: Callable[[str], tuple[ProcedureStep, ...]] = lambda _study: (),
        retention: Callable[[Path, Spool], Retention] | None = None,
        route: Callable[[Origin, str], Spool | None] = lambda _origin, _study: None,
        at: Callable[[str], None] = lambda _stage: None,
    ) -> None:
        self.name, self.poll_s, self.sweep_s = name, RESCAN_S, sweep_s
        self.spool, self._quarantine, self.manifests = Spool(spool), spool / "quarantine", spool / "associations"
        for folder in (self._quarantine, self.manifests):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files = Folder(name, self.spool.studies, index, clock, settle_s=0, allow_empty=True)
        self._indexer, self._store = Indexer(name, store, at), store
        self._clock, self._at, self._route = clock, at, route
        self._called, self._calling, self._promiscuous = (
            {ae_title, *called_ae_titles},
            set(calling_ae_titles),
            promiscuous,
        )
        self._host, self._port, self._tls = host, port, tls
        self._certificates = dict(certificates or {})
        self._maximum_associations, self._maximum_connections = maximum_associations, maximum_connections
        self.maximum_object_bytes, self._minimum_free = maximum_object_bytes, minimum_free_bytes
        self._manifest_days = manifest_days
        self._services = {uid: service for service in services for uid in service.sop_classes}
        self._all_services, self._procedure_steps, self._index = tuple(services), procedure_steps, index
        self._seen = -1  # groups left by the indexer that a look at all of the spool has covered
        self._retention = retention(spool, self.spool) if retention is not None else None
        self._active: set[Association] = set()
        self._lock = threading.Lock()
        self._quota = Quota(name)
        self._lobby: Lobby | None = None

    def start(self) -> None:
        """Listens. Raises ConfigError when the address cannot be used."""
        self.spool.sweep_parts()
        forget(self.manifests, self._clock(), self._manifest_days)
        listener = self._listening()
        self._indexer.start()
        if self._retention is not None:
            self._retention.start()
        self._lobby = Lobby(listener, self._arrived, self._dropped, maximum=self._maximum_connections, tls=self._tls)
        self._lobby.start()

    def stop(self) -> None:
        """Ends every association; what was acknowledged is indexed, the rest leaves nothing behind."""
        if self._lobby is None:
            return
        self._lobby.stop()
        until = time.monotonic() + 10
        while (active := self._snapshot()) and time.monotonic() < until:
            for association in active:
                association.evict()
            time.sleep(0.02)
        if self._retention is not None:
            self._retention.stop()
        self._indexer.stop()
        self._lobby = None

    def changes(self, position: str | None) -> ChangePage:
        """What lies in the spool and is not indexed yet: what a crash left between disk and database."""
        left = self._indexer.left
        self._indexer.commit_left()
        self._files.forget_what_is_known()
        forget(self.manifests, self._clock(), self._manifest_days)
        for service in self._all_services:
            service.catch_up()
        self._take_up_replayed()
        page = self._files.changes(position)
        if page.files or page.gone or page.rejected:
            return replace(page, caught_up=False)  # the next call knows that this page is durable
        self._seen = left
        return page

    def _take_up_replayed(self) -> None:
        """What a person asked to try again of the quarantine: taken in if it can be, else parked again."""
        for key in self._index.replayed_files(self.name):
            name = key.removeprefix(_QUARANTINE)
            path = self._quarantine / f"{name}.dcm"
            if name == key or "/" in name or not path.is_file():
                continue
            scan = preflight(path)
            if scan.verdict is Preflight.QUARANTINE:
                rejection = Rejection(key, scan.reason, {"file": f"quarantine/{path.name}"})
                self._store(ChangePage(frozenset(), "", caught_up=True, rejected=(rejection,)))
                continue
            study, instance = scan.headers.text("StudyInstanceUID"), scan.headers.text("SOPInstanceUID")
            kept = self.spool.keep(path, study, instance, data_set_digest(path))
            if self._retention is not None:
                self._retention.note(kept.path)
            indexed = self._indexed(kept.path, study, scan.headers)
            self._store(ChangePage(frozenset([study]), "", caught_up=True, files=(indexed,), accepted=(key,)))

    def read(self, study_instance_uid: str) -> StudyHeaders:
        headers = self._files.read(study_instance_uid)
        return replace(headers, procedure_steps=self._procedure_steps(study_instance_uid))

    def instance(self, name: InstanceName, most_bytes: int) -> bytes | None:
        """See `bridge.ports.GivesObjects`."""
        return self._files.instance(name, most_bytes)

    def inventory(self) -> Iterator[tuple[str, int]]:
        return self._files.inventory()

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        return self._files.count(study_instance_uids)

    def instance_files(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Sequence[Path]]:
        """SOP Instance UID → its files. Raises SourceUnavailable when what was acknowledged before is not indexed."""
        known = self._seen == self._indexer.left and self._indexer.caught_up(INDEXED_S)
        if not known or self._seen != self._indexer.left:  # a group may have been left while we waited
            raise SourceUnavailable(f"source {self.name}: objects are acknowledged that are not indexed yet")
        found = self._index.instance_files(self.name, sop_instance_uids)
        return {uid: [self.spool.studies / path for path in paths] for uid, paths in found.items()}

    def settled(self, timeout_s: float = 30.0) -> bool:
        """Waits until everything acknowledged is indexed; whether it is."""
        return self._indexer.settled(timeout_s)

    # What an association asks of its receiver, in its own thread.

    def admits(self, asked: Proposal, peer: Peer) -> Reject | None:
        """Why an association is refused, or None (PS3.8 9.3.4)."""
        if self._promiscuous:
            return None
        if asked.called_ae_title not in self._called:
            return Reject.CALLED_AE_TITLE
        if self._calling and asked.calling_ae_title not in self._calling:
            return Reject.CALLING_AE_TITLE
        if not self._calling and not self._certificates and not _on_this_machine(peer.address):
            return Reject.CALLING_AE_TITLE
        if self._certificates and self._certificates.get(asked.calling_ae_title) not in peer.names:
            return Reject.CALLING_AE_TITLE
        return None

    def accepts(self, abstract_syntax: str) -> bool:
        """Verification, every storage class (private ones too), and what the services take."""
        if abstract_syntax == Verification or abstract_syntax in self._services:
            return True
        uid = UID(abstract_syntax)
        if not uid.is_valid:
            return False
        standard = abstract_syntax.startswith("1.2.840.10008.")
        return not standard or (abstract_syntax.startswith(_STORAGE) and not abstract_syntax.startswith(_NOT_STORAGE))

    def opened(self, asked: Proposal, peer: Peer, contexts: int, refused: int) -> _Record:
        opening = _opening(asked, peer) | {"contexts": contexts, "contexts_refused": refused}
        return _Record(
            Manifest(self.manifests, self._clock(), opening), self._clock, partial(self._quota.take, peer.address)
        )

    def turned_away(self, asked: Proposal | None, peer: Peer, reason: str) -> None:
        """A peer that got no association. That it cannot be recorded must not end the thread that receives the next."""
        if self._quota.take(peer.address):
            try:
                Manifest(self.manifests, self._clock(), _opening(asked, peer)).end(self._clock(), f"refused: {reason}")
            except OSError as error:
                log.error("receiver %s: a refused connection cannot be recorded: %s", self.name, error.strerror)

    def part(self) -> Path | None:
        """Where the next object goes; None when there is no room for it."""
        if shutil.disk_usage(self.spool.incoming).free < self._minimum_free:
            log.error("receiver %s: objects are refused: less than minimum_free_bytes are free", self.name)
            return None
        return self.spool.part()

    def take(self, origin: Origin, received: Received) -> Judgement:
        """The status of one whole object (PS3.4 B.2.3). Success only once it survives a crash."""
        try:
            scan = preflight(received.part)
        except Unavailable as error:
            return self._refused(received, str(error))
        if scan.verdict is Preflight.QUARANTINE:
            return self._quarantined(received, scan.reason, Status.CANNOT_UNDERSTAND)
        headers = scan.headers
        study, instance = headers.text("StudyInstanceUID"), headers.text("SOPInstanceUID")
        if (origin.sop_class_uid, origin.sop_instance_uid) != (headers.text("SOPClassUID"), instance):
            reason = "SOPClassUID or SOPInstanceUID: the data set has other than the C-STORE said"
            return self._quarantined(received, reason, Status.DATA_SET_DOES_NOT_MATCH)
        other = self._route(origin, study)
        try:
            kept = (other or self.spool).keep(received.part, study, instance, received.digest)
            self._at("renamed")
            if other is not None:
                return Judgement(Status.SUCCESS, Verdict.ROUTED, study_instance_uid=study)
            if self._retention is not None:
                self._retention.note(kept.path)
            self._indexer.add(self._indexed(kept.path, study, headers))
        except OSError as error:
            return self._refused(received, f"it cannot be kept: {error.strerror}")
        except Unavailable as error:
            return self._refused(received, str(error))
        return _judgement(kept.outcome, scan, study)

    def serve(self, request: Request) -> Response:
        """The answer to a request that is neither C-ECHO nor C-STORE."""
        service = self._services.get(request.sop_class_uid)
        if service is None:
            return Response(Status.UNRECOGNIZED_OPERATION)
        try:
            return service.handle(request)
        except (Unavailable, OSError):
            return Response(Status.RESOURCE_LIMITATION)

    def _indexed(self, path: Path, study: str, headers: Headers) -> IndexedFile:
        status = path.stat()
        relative = str(path.relative_to(self.spool.studies))
        return IndexedFile(relative, status.st_size, status.st_mtime_ns, study, headers.text("SOPInstanceUID"))

    def _refused(self, received: Received, reason: str) -> Judgement:
        received.part.unlink(missing_ok=True)
        log.error("receiver %s: an object was refused: %s", self.name, reason)
        return Judgement(Status.OUT_OF_RESOURCES, Verdict.REFUSED, reason)

    def _quarantined(self, received: Received, reason: str, status: Status) -> Judgement:
        """Keeps what cannot be used where a person finds it; the sender is told that it failed."""
        name = f"{received.digest[:32]}.dcm"
        path = self._quarantine / name
        sizes = [entry.stat().st_size for entry in self._quarantine.iterdir()]
        if not path.exists() and (len(sizes) >= QUARANTINED_KEPT or sum(sizes) + received.size > QUARANTINED_BYTES):
            return self._refused(received, f"the quarantine is full; {reason}")
        received.part.rename(path)
        evidence: dict[str, str | int] = {"bytes": received.size, "file": f"quarantine/{name}"}
        try:
            self._indexer.add(Rejection(f"{_QUARANTINE}{received.digest[:32]}", reason, evidence))
        except Unavailable as error:
            log.error("receiver %s: %s", self.name, error)
        return Judgement(status, Verdict.QUARANTINED, reason)

    # Connections.

    def _arrived(self, connection: socket.socket, peer: Peer, request: bytes) -> None:
        if not self._room():
            self._lobby_reject(connection, peer)
            return
        connection.setblocking(True)
        association = Association(connection, peer, request, self, self._at)
        with self._lock:
            self._active.add(association)
        threading.Thread(target=self._run, args=(association,), name="association", daemon=True).start()

    def _run(self, association: Association) -> None:
        try:
            association.run()
        except Exception as error:  # noqa: BLE001  a bug met by one peer must not end the process
            found = type(error).__name__, place(error)
            log.error("receiver %s: an association ended by unexpected %s at %s", self.name, *found)
        finally:
            with self._lock:
                self._active.discard(association)

    def _room(self) -> bool:
        """Whether another association may begin; the one that has been silent longest makes room if need be."""
        active = self._snapshot()
        if len(active) < self._maximum_associations:
            return True
        waiting = [(not a.spoke, a.silent_s, a) for a in active]
        idle = [one for one in waiting if one[1] >= (UNSPOKEN_S if one[0] else SILENT_S)]
        if not idle:
            return False
        silent = max(idle, key=lambda one: one[:2])[2]
        silent.evict()
        with self._lock:
            self._active.discard(silent)
        return True

    def _lobby_reject(self, connection: socket.socket, peer: Peer) -> None:
        with connection, contextlib.suppress(OSError):
            connection.send(reject_pdu(Reject.LOCAL_LIMIT))
        self.turned_away(None, peer, "local limit exceeded")

    def _dropped(self, peer: Peer, reason: str) -> None:
        self.turned_away(None, peer, reason)

    def _snapshot(self) -> list[Association]:
        with self._lock:
            return list(self._active)

    def _listening(self) -> socket.socket:
        listener: socket.socket | None = None
        try:
            family, _, _, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            if listener is not None:
                listener.close()
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise ConfigError(
                f"sources: {self.name}: port {self._port} on {self._host} {reason}. Choose another port or host"
            ) from None
        return listener


class _Record:
    """A manifest with its receiver's clock. `may_be_empty` is asked once when no object came."""

    def __init__(self, manifest: Manifest, clock: Callable[[], float], may_be_empty: Callable[[], bool]) -> None:
        self._manifest, self._clock, self._may_be_empty = manifest, clock, may_be_empty

    def add(self, verdict: Verdict, status: int, line: Mapping[str, Any]) -> None:
        self._manifest.add(verdict, status, line)

    def end(self, how: str) -> None:
        try:
            if not self._manifest.empty or self._may_be_empty():
                self._manifest.end(self._clock(), how)
        except OSError as error:
            log.error("the end of an association cannot be recorded: %s", error.strerror)


_CONFLICT = "SOPInstanceUID: the spool holds other content of the same instance; both are kept, the first is shown"


def _judgement(outcome: Outcome, scan: Scan, study: str) -> Judgement:
    """What is said of an object that was kept."""
    if outcome is Outcome.CONFLICT:
        return Judgement(Status.SUCCESS, Verdict.CONFLICT, _CONFLICT, study)
    found = "; ".join(f"{f.keyword} {f.problem}".strip() for f in scan.findings[:_FINDINGS_SHOWN])
    if outcome is Outcome.DUPLICATE:
        return Judgement(Status.SUCCESS, Verdict.DUPLICATE, found, study)
    return Judgement(Status.SUCCESS, Verdict.FINDINGS if scan.findings else Verdict.ACCEPTED, found, study)


def _opening(asked: Proposal | None, peer: Peer) -> dict[str, Any]:
    titles = (
        {} if asked is None else {"calling_ae_title": asked.calling_ae_title, "called_ae_title": asked.called_ae_title}
    )
    certified = {"certificate": sorted(peer.names)} if peer.names else {}
    return {"peer": peer.address, **titles, **certified}


def _on_this_machine(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def server_context(name: str, *, certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """TLS of a receiver (PS3.15 B.12: TLS 1.2 or newer); with `client_ca` every caller must show a certificate of it.

    Raises  ConfigError, naming the setting, when a file cannot be used
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError):
        raise ConfigError(
            f"source {name}: tls.certificate, tls.key: not a readable PEM certificate with its key"
        ) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError):
            raise ConfigError(f"source {name}: tls.client_ca: not a readable file of PEM certificates") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context
