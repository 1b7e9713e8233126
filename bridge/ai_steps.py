"""Builds from settings the steps that store documents of AI results in archives. Part of the composition root."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from bridge.ai_peers import CStoreArchive as CStoreSettings
from bridge.ai_peers import StowArchive as StowSettings
from bridge.archiving.c_store import CStoreArchive
from bridge.archiving.sender import DocumentArchive, DocumentSender
from bridge.archiving.stow import StowArchive
from bridge.config import Settings
from bridge.errors import ConfigError
from bridge.model import StudyResult
from bridge.ports import Wait, send_queue
from bridge.settling import Settling
from bridge.sign_in import archive_sign_in, client_tls
from bridge.sources.peer import Peer
from bridge.state import State
from bridge.web.exchange import Exchange
from bridge.web.owner import Owner


class AiSteps:
    """What follows studies and their results besides the sinks. `closed` gets what ends the connections."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        settling: Settling,
        lease_s: float,
        at: Callable[[str], None],
        closed: list[Callable[[], None]],
    ) -> None:
        if settings.archives and importlib.util.find_spec("highdicom") is None:
            raise ConfigError("archives: highdicom is not installed: pip install 'imaging-bridge[sr]'")
        self._state, self._settling = state, settling
        self._senders = [
            DocumentSender(
                archive.name,
                _archive(archive, settings.data_dir, closed),
                frozenset(archive.sources),
                state,
                settling,
                lease_s,
                at,
            )
            for archive in settings.archives
        ]

    def prepare(self) -> None:
        """An archive that is new is to get the documents of all results."""
        for sender in self._senders:
            self._state.introduce_archive(sender.name, self._settling.clock())

    def followed_by(self, result: StudyResult) -> Mapping[str, Wait]:
        """The queues whose work follows this study, should anything of it have changed."""
        has_results = any(r["resourceType"] == "DiagnosticReport" for r in result.resources)
        return {send_queue(sender.name): Wait() for sender in self._senders} if has_results else {}

    def steps(self) -> dict[str, Callable[[str], int]]:
        """Each is repeated in a thread of its own, by its name."""
        return {f"send-{sender.name}": sender.step for sender in self._senders}


def _archive(
    settings: StowSettings | CStoreSettings, data_dir: Path, closed: list[Callable[[], None]]
) -> DocumentArchive:
    owner = Owner.archive(settings.name)
    if isinstance(settings, CStoreSettings):
        peer = Peer(
            settings.host,
            settings.port,
            settings.ae_title,
            settings.calling_ae_title,
            tls=client_tls(owner, settings.tls),
            timeout_s=settings.timeout_s,
        )
        return CStoreArchive(peer, data_dir / "documents" / settings.name)
    signed_in = archive_sign_in(settings)
    exchange = Exchange(
        owner,
        settings.url,
        product="the archive's STOW-RS service",
        auth=signed_in.auth,
        tls=signed_in.tls,
        timeout_s=settings.timeout_s,
    )
    closed += [signed_in.close, exchange.close]
    return StowArchive(exchange)
