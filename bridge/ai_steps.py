"""Builds from settings the steps that call models, and that store documents of their results in archives. Part of the
composition root."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bridge.ai_peers import CStoreArchive as CStoreSettings
from bridge.ai_peers import Model as ModelSettings
from bridge.ai_peers import StowArchive as StowSettings
from bridge.api.ai_results import Kept
from bridge.api.images import Images, Opened
from bridge.archives import Archives
from bridge.archiving.c_store import CStoreArchive
from bridge.archiving.sender import DocumentArchive, DocumentSender
from bridge.archiving.stow import StowArchive
from bridge.config import Settings
from bridge.errors import ConfigError, SourceUnavailable
from bridge.intake import Intake
from bridge.loops import Loop
from bridge.model import KeptResult, StudyResult
from bridge.model_calls.caller import CalledModel, ModelCaller
from bridge.model_calls.request import Access
from bridge.model_calls.rule import Rule, called_series
from bridge.model_calls.service import HttpModel
from bridge.model_calls.token import Tokens
from bridge.ports import Wait, model_queue, send_queue
from bridge.settling import Settling
from bridge.sign_in import archive_sign_in, client_tls, model_sign_in
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
        intake: Intake,
        sources: Archives,
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
                self._sent,
                archive.rejection_notes,
                settling,
                lease_s,
                at,
            )
            for archive in settings.archives
        ]
        self._sources = sources
        self._kept = Kept(intake, state, tuple(sources.sources))
        self._tokens = Tokens(settings.data_dir / "image-token.key") if settings.models else None
        self._public_url = settings.public_url
        self._models = settings.models
        self._callers = [
            ModelCaller(
                _called_model(model),
                HttpModel(model.name, _model_exchange(model, closed)),
                intake,
                state,
                settling,
                lease_s,
                self._access,
                f"{settings.public_url}/ai-results",
                at,
            )
            for model in settings.models
        ]

    def prepare(self) -> None:
        """An archive that is new is to get the documents of all results."""
        for sender in self._senders:
            self._state.introduce_archive(sender.name, self._settling.clock())

    def followed_by(self, result: StudyResult) -> Mapping[str, Wait]:
        """The queues whose work follows this study, should anything of it have changed."""
        has_results = any(r["resourceType"] == "DiagnosticReport" for r in result.resources)
        queues = {send_queue(sender.name): Wait() for sender in self._senders} if has_results else {}
        study = next((r for r in result.resources if r["resourceType"] == "ImagingStudy"), {})
        models = [caller.model for caller in self._callers if called_series(caller.model.rule, study)]
        return queues | {model_queue(model.name): model.wait for model in models}

    def steps(self) -> list[Loop]:
        """Each is repeated in a thread of its own."""
        steps = [Loop(f"send-{sender.name}", send_queue(sender.name), sender.step) for sender in self._senders]
        for caller, model in zip(self._callers, self._models, strict=True):
            queue = model_queue(model.name)
            steps += [Loop(f"model-{model.name}-{n}", queue, caller.step) for n in range(model.at_once)]
        return steps

    def images(self) -> Images | None:
        """What tokens of calls open; None when no model is called."""
        tokens = self._tokens
        if tokens is None:
            return None
        return Images(lambda token: tokens.study_of(token, self._settling.clock()), self._opened)

    def _sent(self, uid: str) -> Sequence[KeptResult]:
        """The results that were sent for a study, with the reviews that readers' reports are."""
        sent = {one.run_id for one in self._state.ai_results(uid)}
        return [one for one in self._kept.of_study(uid) if one.run_id in sent] if sent else ()

    def _access(self, uid: str, expires_at: float) -> Access:
        """The bridge passes on what an archive with WADO-RS gives, or files of ours; of another archive it knows at
        most the address."""
        holders = [name for name in self._sources.sources if name in self._state.holders(uid)]
        if self._tokens is not None and any(name in self._sources.images for name in holders):
            return Access(f"{self._public_url}/wado-rs", self._tokens.issue(uid, expires_at), expires_at)
        endpoints = [self._sources.sources[name].endpoint for name in holders]
        address = next((endpoint.address for endpoint in endpoints if endpoint is not None), "")
        return Access(address, "", expires_at)

    def _opened(self, uid: str, path: str, accept: str) -> Opened | None:
        """From the first archive that has it, in the order of the configuration."""
        failure: SourceUnavailable | None = None
        holders = self._state.holders(uid)
        for name, images in self._sources.images.items():
            if name in holders:
                try:
                    found = images.opened(path, accept)
                except SourceUnavailable as error:
                    failure = error
                    continue
                if found is not None:
                    return found
        if failure is not None:
            raise failure
        return None


def _called_model(settings: ModelSettings) -> CalledModel:
    rule = settings.rule
    return CalledModel(
        settings.name,
        settings.version,
        Rule(
            frozenset(rule.modalities),
            frozenset(rule.body_sites),
            frozenset(rule.procedures),
            frozenset(rule.sources),
            rule.minimum_instances,
        ),
        settings.stable_s,
        settings.attempts,
        settings.token_minutes * 60,
    )


def _model_exchange(settings: ModelSettings, closed: list[Callable[[], None]]) -> Exchange:
    signed_in = model_sign_in(settings)
    exchange = Exchange(
        Owner.model(settings.name),
        settings.url,
        product="the model's service",
        auth=signed_in.auth,
        tls=signed_in.tls,
        timeout_s=settings.timeout_s,
        most_bytes=settings.maximum_bytes,
    )
    closed += [signed_in.close, exchange.close]
    return exchange


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
