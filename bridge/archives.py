"""Builds the sources from settings, and runs what listens among them. Part of the composition root."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx

from bridge.config import (
    DicomServerSource,
    DicomWebSource,
    DimseSource,
    FolderSource,
    OrthancSource,
    ReceiverSource,
    Settings,
    Source,
)
from bridge.connections import ClientTls, OAuth
from bridge.model import WadoEndpoint
from bridge.ports import ChangePage, ImagingSource
from bridge.sign_in import client_tls, token_tls
from bridge.sources.association import Origin
from bridge.sources.availability import Availability
from bridge.sources.dicom_server import DicomServer
from bridge.sources.dicomweb import DicomWeb
from bridge.sources.dimse import Dimse
from bridge.sources.dimse_retrieve import Retrieve, RetrievePolicy
from bridge.sources.file_images import FileImages
from bridge.sources.folder import Folder
from bridge.sources.orthanc import Orthanc
from bridge.sources.procedure_step import ProcedureSteps
from bridge.sources.receiver import Receiver, server_context
from bridge.sources.retention import Retention
from bridge.sources.scu import Peer, Sender, report
from bridge.sources.spool import Spool
from bridge.sources.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, StorageCommitment
from bridge.sources.study_images import StudyImages
from bridge.state import State
from bridge.translate.headers import Headers
from bridge.web.auth import ClientCredentials, sign_in
from bridge.web.owner import Owner


class Archives:
    """Every configured source by name, in the order of the configuration."""

    def __init__(self, settings: Settings, state: State, at: Callable[[str], None]) -> None:
        self._settings, self._state, self._at = settings, state, at
        self._closed: list[Callable[[], None]] = []
        self._movers: dict[str, list[Dimse]] = {}
        self._listening: list[tuple[Receiver, StorageCommitment]] = []
        self.images: dict[str, StudyImages | FileImages] = {}
        self.sources: dict[str, ImagingSource] = {s.name: self._source(s) for s in settings.sources}

    @contextmanager
    def running(self, listening: bool = True) -> Iterator[None]:
        """Receivers listen until the block ends; then connections are closed. Raises ConfigError for a taken port."""
        with ExitStack() as stack:
            for close in self._closed:
                stack.callback(close)
            for receiver, commitment in self._listening if listening else ():
                receiver.start()
                stack.callback(receiver.stop)
                commitment.start()
                stack.callback(commitment.stop)
            yield

    def close(self) -> None:
        """Closes the connections of sources that nobody ran."""
        for close in reversed(self._closed):
            close()

    def _source(self, settings: Source) -> ImagingSource:
        if isinstance(settings, FolderSource):
            return self._folder(settings)
        if isinstance(settings, ReceiverSource):
            return self._receiver(settings)
        if isinstance(settings, DicomServerSource):
            return self._dicom_server(settings)
        if isinstance(settings, DicomWebSource):
            return self._dicomweb(settings)
        if isinstance(settings, DimseSource):
            return self._dimse(settings)
        return self._orthanc(settings)

    def _folder(self, settings: FolderSource) -> Folder:
        if settings.path.is_relative_to(self._settings.data_dir):
            settings.path.mkdir(parents=True, exist_ok=True)
        self._open_files(settings.name, settings.path)
        return Folder(
            settings.name,
            settings.path,
            self._state,
            time.time,
            poll_s=settings.poll_s,
            sweep_s=settings.sweep_s,
            settle_s=settings.settle_s,
            allow_empty=settings.allow_empty,
        )

    def _receiver(self, settings: ReceiverSource) -> Receiver:
        spool, store = self._settings.data_dir / "spool" / settings.name, partial(self._store, settings.name)
        steps = ProcedureSteps(spool, store, time.time, procedure_step_days=settings.procedure_step_days)
        peers = {title: peer.rpartition(":") for title, peer in settings.peers.items()}
        commitment = StorageCommitment(
            spool,
            lambda uids: receiver.instance_files(uids),
            {
                title: partial(
                    report,
                    Peer(host, int(port), title, settings.ae_title),
                    STORAGE_COMMITMENT,
                    STORAGE_COMMITMENT_INSTANCE,
                )
                for title, (host, _, port) in peers.items()
            },
            store,
            time.time,
            commitment_retry_days=settings.commitment_retry_days,
            replayed=lambda: self._state.replayed_files(settings.name),
        )
        tls = settings.tls
        receiver = Receiver(
            settings.name,
            spool,
            self._state,
            store,
            time.time,
            ae_title=settings.ae_title,
            called_ae_titles=settings.called_ae_titles,
            calling_ae_titles=settings.calling_ae_titles,
            promiscuous=settings.promiscuous,
            host=settings.host,
            port=settings.port,
            tls=None
            if tls is None
            else server_context(settings.name, certificate=tls.certificate, key=tls.key, client_ca=tls.client_ca),
            certificates=tls.ae_titles if tls is not None else {},
            maximum_associations=settings.maximum_associations,
            maximum_connections=settings.maximum_connections,
            maximum_object_bytes=settings.maximum_object_bytes,
            minimum_free_bytes=settings.minimum_free_bytes,
            manifest_days=settings.manifest_days,
            sweep_s=settings.sweep_s,
            services=(steps, commitment, Availability(spool, self._hint, store)),
            procedure_steps=steps.of_study,
            retention=partial(self._retention, settings, store),
            route=partial(self._route, settings.name),
            at=self._at,
        )
        self._listening.append((receiver, commitment))
        if settings.retention == "keep":
            self._open_files(settings.name, receiver.spool.studies)
        return receiver

    def _retention(
        self, settings: ReceiverSource, store: Callable[[ChangePage], None], root: Path, spool: Spool
    ) -> Retention:
        to = settings.forward
        return Retention(
            settings.name,
            root,
            spool,
            store,
            time.time,
            forwarder=None if to is None else Sender(Peer(to.host, to.port, to.ae_title, settings.ae_title)),
            drop_pixel_data=settings.retention == "drop_pixel_data",
            retain_s=settings.retain_hours * 3600,
            replayed=lambda: self._state.replayed_files(settings.name),
        )

    def _orthanc(self, settings: OrthancSource) -> Orthanc:
        address = settings.wado_rs or settings.url.rstrip("/") + settings.dicom_web
        orthanc = Orthanc(
            settings.name,
            settings.url,
            dicom_web=settings.dicom_web,
            username=settings.username,
            password=settings.password.get_secret_value(),
            timeout_s=settings.timeout_s,
            endpoint=WadoEndpoint(settings.name, address.rstrip("/")),
            poll_s=settings.poll_s,
            sweep_s=settings.sweep_s,
            verify_s=settings.verify_s,
        )
        self._closed.append(orthanc.close)
        wado_rs = settings.url.rstrip("/") + settings.dicom_web
        password = settings.password.get_secret_value()
        self._open(settings.name, wado_rs, sign_in(wado_rs, username=settings.username, password=password))
        return orthanc

    def _dicom_server(self, settings: DicomServerSource) -> DicomServer:
        auth = None if settings.oauth is None else self._tokens(settings.name, settings.url, settings.oauth, None)
        address = settings.wado_rs or f"{settings.url.rstrip('/')}/{settings.api_version}"
        if len(settings.partitions) == 1 and not settings.wado_rs:
            address += f"/partitions/{settings.partitions[0]}"
        server = DicomServer(
            settings.name,
            settings.url,
            api_version=settings.api_version,
            partitions=settings.partitions,
            auth=auth,
            timeout_s=settings.timeout_s,
            endpoint=WadoEndpoint(settings.name, address.rstrip("/")),
            poll_s=settings.poll_s,
            sweep_s=settings.sweep_s,
            verify_s=settings.verify_s,
            overlap_s=settings.overlap_s,
        )
        self._closed.append(server.close)
        if len(settings.partitions) < 2:
            partition = "".join(f"/partitions/{p}" for p in settings.partitions)
            self._open(settings.name, f"{settings.url.rstrip('/')}/{settings.api_version}{partition}", auth)
        return server

    def _dicomweb(self, settings: DicomWebSource) -> DicomWeb:
        tls = client_tls(Owner.source(settings.name), settings.tls)
        auth: httpx.Auth | None
        if settings.oauth is not None:
            auth = self._tokens(settings.name, settings.url, settings.oauth, settings.tls)
        else:
            auth = sign_in(
                settings.url,
                username=settings.username,
                password=settings.password.get_secret_value(),
                bearer_token=settings.bearer_token.get_secret_value(),
            )
        address = (settings.wado_rs or settings.url.rstrip("/") + settings.wado_prefix).rstrip("/")
        source = DicomWeb(
            settings.name,
            settings.url,
            clock=time.time,
            qido_prefix=settings.qido_prefix,
            wado_prefix=settings.wado_prefix,
            auth=auth,
            tls=tls,
            page_size=settings.page_size,
            lookback_days=settings.lookback_days,
            overlap_days=settings.overlap_days,
            timeout_s=settings.timeout_s,
            poll_s=settings.poll_s,
            sweep_s=settings.sweep_s,
            verify_s=settings.verify_s,
            rereads_per_pass=settings.rereads_per_pass,
            endpoint=WadoEndpoint(settings.name, address),
        )
        self._closed.append(source.close)
        self._open(settings.name, settings.url.rstrip("/") + settings.wado_prefix, auth, tls)
        return source

    def _dimse(self, settings: DimseSource) -> Dimse:
        destinations = {s.name: s.ae_title for s in self._settings.sources if isinstance(s, ReceiverSource)}
        source = Dimse(
            settings.name,
            Peer(
                settings.host,
                settings.port,
                settings.ae_title,
                settings.calling_ae_title,
                tls=client_tls(Owner.source(settings.name), settings.tls),
                timeout_s=settings.timeout_s,
            ),
            time.time,
            spool=self._settings.data_dir / "spool" / settings.name,
            endpoint=WadoEndpoint(settings.name, settings.wado_rs.rstrip("/")) if settings.wado_rs else None,
            poll_s=settings.poll_s,
            sweep_s=settings.sweep_s,
            verify_s=settings.verify_s,
            rereads_per_pass=settings.rereads_per_pass,
            lookback_days=settings.lookback_days,
            window_days=settings.window_days,
            overlap_days=settings.overlap_days,
            response_limit=settings.response_limit,
            retrieve=Retrieve(settings.retrieve),
            retrieve_policy=RetrievePolicy(settings.retrieve_policy),
            destination_ae_title=destinations.get(settings.receiver, ""),
            move_timeout_s=settings.move_timeout_s,
            associations=settings.associations,
            maximum_queries_per_s=settings.maximum_queries_per_s,
            allowed_hours=settings.allowed_hours,
            zone=self._settings.zone,
        )
        if settings.receiver:
            self._movers.setdefault(settings.receiver, []).append(source)
        self._closed.append(source.close)
        return source

    def _open(self, name: str, wado_rs: str, auth: httpx.Auth | None, tls: ssl.SSLContext | None = None) -> None:
        images = self.images[name] = StudyImages(name, wado_rs, auth=auth, tls=tls)
        self._closed.append(images.close)

    def _open_files(self, name: str, root: Path) -> None:
        def snapshot(study_instance_uid: str) -> Sequence[Headers]:
            return self._state.snapshots(study_instance_uid).get(name, ())

        self.images[name] = FileImages(name, root, snapshot, partial(self._state.instance_files, name))

    def _tokens(self, name: str, url: str, oauth: OAuth, tls: ClientTls | None) -> ClientCredentials:
        owner = Owner.source(name)
        tokens = ClientCredentials(
            owner,
            url,
            token_url=oauth.token_url,
            client_id=oauth.client_id,
            client_secret=oauth.client_secret.get_secret_value(),
            scope=oauth.scope,
            resource=oauth.resource,
            tls=client_tls(owner, tls),
            token_tls=token_tls(owner, tls),
        )
        self._closed.append(tokens.close)
        return tokens

    def _route(self, receiver: str, origin: Origin, study_instance_uid: str) -> Spool | None:
        """The spool of the source that asked for this object by C-MOVE; None for one that came by itself."""
        for source in self._movers.get(receiver, ()):
            spool = source.takes(origin.calling_ae_title, origin.move_originator, study_instance_uid)
            if spool is not None:
                return spool
        return None

    def _store(self, source: str, page: ChangePage) -> None:
        self._state.commit_page(source, page, time.time(), self._settings.quiet_s, self._settings.max_wait_s)

    def _hint(self, ae_title: str, study_instance_uid: str) -> bool:
        """A notification said that an archive has a study: it is read again. False when no source has this title."""
        named = [
            s.name
            for s in self._settings.sources
            if (isinstance(s, OrthancSource | DicomServerSource | DicomWebSource) and s.retrieve_ae_title == ae_title)
            or (isinstance(s, DimseSource) and s.ae_title == ae_title)
        ]
        for source in named:
            self._store(source, ChangePage(frozenset([study_instance_uid]), "", caught_up=True))
        return bool(named)
