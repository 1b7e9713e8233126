"""Builds the sources from settings, and runs what listens among them. Part of the composition root."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bridge.config import DicomServerSource, FolderSource, OrthancSource, ReceiverSource, Settings
from bridge.model import WadoEndpoint
from bridge.ports import ChangePage, ImagingSource
from bridge.sources.availability import Availability
from bridge.sources.dicom_server import DicomServer
from bridge.sources.folder import Folder
from bridge.sources.orthanc import Orthanc
from bridge.sources.procedure_step import ProcedureSteps
from bridge.sources.receiver import Receiver, server_context
from bridge.sources.scu import Peer, report
from bridge.sources.storage_commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, StorageCommitment
from bridge.sources.web_auth import ClientCredentials
from bridge.state import State


class Archives:
    """Every configured source by name, in the order of the configuration."""

    def __init__(self, settings: Settings, state: State, at: Callable[[str], None]) -> None:
        self._settings, self._state, self._at = settings, state, at
        self._closed: list[Callable[[], None]] = []
        self._listening: list[tuple[Receiver, StorageCommitment]] = []
        self.sources: dict[str, ImagingSource] = {s.name: self._source(s) for s in settings.sources}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Receivers listen until the block ends; then connections are closed. Raises ConfigError for a taken port."""
        with ExitStack() as stack:
            for close in self._closed:
                stack.callback(close)
            for receiver, commitment in self._listening:
                receiver.start()
                stack.callback(receiver.stop)
                commitment.start()
                stack.callback(commitment.stop)
            yield

    def _source(self, settings: FolderSource | ReceiverSource | OrthancSource | DicomServerSource) -> ImagingSource:
        if isinstance(settings, FolderSource):
            return self._folder(settings)
        if isinstance(settings, ReceiverSource):
            return self._receiver(settings)
        if isinstance(settings, DicomServerSource):
            return self._dicom_server(settings)
        return self._orthanc(settings)

    def _folder(self, settings: FolderSource) -> Folder:
        if settings.path.is_relative_to(self._settings.data_dir):
            settings.path.mkdir(parents=True, exist_ok=True)
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
            at=self._at,
        )
        self._listening.append((receiver, commitment))
        return receiver

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
        return orthanc

    def _dicom_server(self, settings: DicomServerSource) -> DicomServer:
        oauth = settings.oauth
        auth = None
        if oauth is not None:
            auth = ClientCredentials(
                settings.name,
                settings.url,
                token_url=oauth.token_url,
                client_id=oauth.client_id,
                client_secret=oauth.client_secret.get_secret_value(),
                scope=oauth.scope,
                resource=oauth.resource,
            )
            self._closed.append(auth.close)
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
        return server

    def _store(self, source: str, page: ChangePage) -> None:
        self._state.commit_page(source, page, time.time(), self._settings.quiet_s, self._settings.max_wait_s)

    def _hint(self, ae_title: str, study_instance_uid: str) -> bool:
        """A notification said that an archive has a study: it is read again. False when no source has this title."""
        named = [
            s.name
            for s in self._settings.sources
            if isinstance(s, OrthancSource | DicomServerSource) and s.retrieve_ae_title == ae_title
        ]
        for source in named:
            self._store(source, ChangePage(frozenset([study_instance_uid]), "", caught_up=True))
        return bool(named)
