"""Builds a running bridge from settings. With `bridge.cli`, the composition root: it may import everything."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Query

from bridge.ai_steps import AiSteps
from bridge.api.ai_results import router as ai_results_router
from bridge.api.app import create_app, export_limits, monitoring_app
from bridge.api.images import router as images_router
from bridge.api.reader_reports import router as reader_reports_router
from bridge.archives import Archives
from bridge.association_list import list_associations, show_association
from bridge.config import Settings
from bridge.document_process import DocumentProcesses, ReadingLimits
from bridge.errors import ConfigError, InvalidQuery, SinkUnavailable
from bridge.fhir_servers import fhir_server_sink
from bridge.follow.export import Exporter
from bridge.follow.notifier import Notifier, NotifierSettings
from bridge.follow.ports import EXPORT_QUEUE
from bridge.follow.rest_hook import RestHook
from bridge.intake import Intake
from bridge.lake_repair import LakeRepair
from bridge.loops import Loop, Loops
from bridge.model import ALL_ROLES, Role
from bridge.monitoring import metrics_of, monitoring_router, overview_router
from bridge.observer import Step
from bridge.ports import ImagingSource, Sink
from bridge.reconcile.reconciler import Reconciler
from bridge.reconcile.report import Report
from bridge.reconcile.scheduled import RECONCILE_QUEUE, Scheduled
from bridge.roles import check_roles, folder_of
from bridge.sinks.lake import LakeSink
from bridge.state import State
from bridge.sync import Pipeline, Timing
from bridge.translate.validate import validate
from bridge.translation import translator
from cohort.api import router as cohort_router
from cohort.desk import desk_of
from cohort.lake import Lake
from cohort.store.place import place_of
from cohort.tally import LakeTally

log = logging.getLogger("bridge")

POSTED_AT_ONCE = 2
"""So many documents that were sent are read at once, apart from those of archives: neither waits for the other."""

PUBLISH_AT_LEAST_EVERY_S = 5.0
PUBLISH_AT_MOST_EVERY_S = 1.0
COMPACT_EVERY_S = 30.0
PUBLISH_SHARE = 0.2
"""At most this share of the time goes into publishing that takes long: generations come less often, not slower work."""

VISIBLE_WITHIN_S = 5.0
"""What is delivered to the lake is visible to questions within so long, while publishing takes less than half of it."""


class Bridge:
    """Everything one `bridge run` process consists of. `failed` is set when a part of it died.

    `at` is told each stage of the work as it is reached (tests kill the process there).
    """

    def __init__(
        self,
        settings: Settings,
        at: Callable[[str], None] = lambda _stage: None,
        roles: Set[Role] = ALL_ROLES,
    ) -> None:
        check_roles(settings, roles)
        self.settings, self._at, self._roles = settings, at, roles
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.failed = threading.Event()
        self.stopping = threading.Event()
        self.state = State(settings.database_url)
        self.lake = Lake(place_of(settings), at)
        self._repair = LakeRepair(self.lake, self.state)
        self._lake_is_open = False
        self.desk = desk_of(settings.cohort, settings.lake_dir)
        self._publish = threading.Event()
        self._lake_problem = "it is not open yet" if Role.DELIVER in roles else ""
        self._closed: list[Callable[[], None]] = []
        self.metrics = metrics_of(settings, self._closed)
        self._loops: Loops | None = None
        limits = ReadingLimits(settings.documents.deadline_s, settings.documents.memory_mb * 1_048_576)
        self.documents = DocumentProcesses(settings.workers, limits, self.metrics.reading_ended)
        posted = DocumentProcesses(POSTED_AT_ONCE, limits, self.metrics.reading_ended)
        self._closed += [self.documents.close, posted.close]
        self._archives = Archives(settings, self.state, at)
        self.sources: dict[str, ImagingSource] = self._archives.sources
        self.sinks: dict[str, Sink] = {s.name: fhir_server_sink(s, self._closed) for s in settings.sinks}
        self.sinks["lake"] = LakeSink(self.lake.append, self._publish.set)
        self.pipeline = Pipeline(
            state=self.state,
            sources=self.sources,
            sinks=self.sinks,
            translator=translator(settings, self.sources),
            timing=Timing(
                quiet_s=settings.quiet_s,
                max_wait_s=settings.max_wait_s,
                backfill_per_minute=settings.backfill_per_minute,
                recheck_hours={s.name: s.recheck_hours for s in settings.sinks if s.recheck_hours},
            ),
            clock=time.time,
            random=random.random,
            at=at,
            check=validate if settings.validate_resources else None,
            observer=self.metrics,
            keep=self.documents.kept_part,
        )
        tables = self.pipeline.translator.site.tables
        self.intake = Intake(
            self.state,
            tables,
            time.time,
            settings.quiet_s,
            settings.max_wait_s,
            settings.zone,
            look=lambda content: posted.kept_part(content, None),
        )
        lease_s, settling = self.pipeline.timing.lease_s, self.pipeline.settling
        self._ai = AiSteps(settings, self.state, settling, lease_s, at, self.intake, self._archives, self._closed)
        self.pipeline.followed_by = self._ai.followed_by

    def app(self) -> FastAPI:
        """The HTTP application: FHIR API, cohort API and page, operations."""
        results = ai_results_router(self.intake, self.state, tuple(self.sources))
        reports = reader_reports_router(self.intake, self.state, tuple(self.sources))
        routers = [cohort_router(self.lake, self.desk), _associations_router(self.settings), results, reports]
        images = self._ai.images()
        routers += [images_router(images)] if images is not None else []
        routers += [self._monitoring(), overview_router(self.settings, self.state, self.pipeline)]
        return create_app(self.settings, self.state, time.time, routers)

    def _monitoring(self) -> APIRouter:
        return monitoring_router(
            self.settings, self.state, self.pipeline, self.metrics, self._dead, lambda: self._lake_problem
        )

    @contextmanager
    def running(self) -> Iterator[Bridge]:
        """What the roles are: receivers, loops, publisher, HTTP server, until the block ends. Raises ConfigError for a
        taken port, or for a data folder that this process cannot have."""
        with ExitStack() as stack:
            stack.callback(self.state.close)
            for close in self._closed:
                stack.callback(close)
            stack.enter_context(folder_of(self.settings, self._roles, self.state))
            if self.settings.database_url.startswith("sqlite"):
                self.state.release_leases()
            stack.enter_context(self._archives.running(listening=Role.POLL in self._roles))
            others = stack.enter_context(self._followers()) if Role.SERVE in self._roles else []
            if Role.DELIVER in self._roles:
                self._ai.prepare()
                others += [*self._ai.steps(), Loop("reconcile", RECONCILE_QUEUE, self._reconciliation().step)]
            process = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
            loops = self._loops = Loops(
                self.pipeline,
                self._roles,
                process,
                self.settings.workers,
                self.state,
                self._died,
                others,
            )
            api = self.settings.api
            if Role.SERVE in self._roles:
                stack.enter_context(self._serving(self.app(), api.port))
            elif api.monitoring_port:
                app = monitoring_app(self.settings, self._monitoring())
                stack.enter_context(self._serving(app, api.monitoring_port))
            if Role.DELIVER in self._roles:
                self._open_lake()
                stack.enter_context(self._publishing())
            loops.start()
            try:
                yield self
            finally:
                self.stopping.set()
                loops.stop()

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        publisher = threading.Thread(target=self._publish_loop, name="publisher", daemon=True)
        compactor = threading.Thread(target=self._compact_loop, name="compactor", daemon=True)
        publisher.start()
        compactor.start()
        try:
            yield
        finally:
            self._publish.set()
            publisher.join(timeout=20)

    @contextmanager
    def _serving(self, app: FastAPI, port: int) -> Iterator[None]:
        with _listen(self.settings.api.host, port) as listener:
            server = uvicorn.Server(_uvicorn(app))
            web = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
            web.start()
            try:
                yield
            finally:
                server.should_exit = True
                web.join(timeout=10)

    @contextmanager
    def _followers(self) -> Iterator[list[Loop]]:
        """The steps that serve followers; each subscription that is due has a thread of its own."""
        api = self.settings.api
        exporter = Exporter(self.state, self.settings.export_dir, export_limits(self.settings), time.time)
        give_up_s = api.subscription_give_up_hours * 3600
        notified = NotifierSettings(f"{self.settings.public_url}/fhir", api.subscription_endpoints, give_up_s)
        hook = RestHook()
        notifier = Notifier(self.state, hook, notified, time.time, random.random, _in_a_thread)
        try:
            yield [Loop("export", EXPORT_QUEUE, exporter.step), Loop("subscriptions", "", notifier.step)]
        finally:
            hook.close()

    def _reconciliation(self) -> Scheduled:
        """Everything compared from time to time, by connections of its own to the FHIR servers."""

        def reconcile() -> Report:
            closed = list[Callable[[], None]]()
            self._repair.run()
            with LakeTally(self.lake) as lake, ExitStack() as stack:
                servers = {s.name: fhir_server_sink(s, closed) for s in self.settings.sinks}
                for close in closed:
                    stack.callback(close)
                return Reconciler(self.state, self.sources, servers, lake, time.time).run(repair=True)

        return Scheduled(self.state, reconcile, self.settings.reconcile_hours * 3600, time.time)

    def _open_lake(self) -> None:
        """Checks the lake; one that is new or was taken away gets all that is known. A store that does not answer is
        asked again by the publisher. Raises ConfigError for a lake that is not ours, or that cannot publish."""
        try:
            self.lake.check()
            empty = self.lake.current() is None and not self.lake.pending()
        except InvalidQuery as error:
            raise ConfigError(f"{self.lake.place.url}: {error}: move it away, a new one is filled") from None
        except SinkUnavailable as error:
            log.warning("%s", error)
            self._lake_problem = str(error)
            return
        if empty:
            self.state.mark_known("lake", time.time())
        self._lake_is_open, self._lake_problem = True, ""

    def _dead(self) -> tuple[str, ...]:
        """What has ended of that which must run as long as the process does."""
        ended = self._loops.dead() if self._loops is not None else ("loops",)
        return ended or (("bridge",) if self.failed.is_set() else ())

    def _died(self, reason: str) -> None:
        log.critical("%s: stopping", reason)
        self.failed.set()

    def _publish_loop(self) -> None:
        try:
            while not self.stopping.is_set():
                self._publish.wait(PUBLISH_AT_LEAST_EVERY_S)
                self._publish.clear()
                started = time.monotonic()
                if not self._lake_is_open:
                    self._open_lake()
                self.publish()
                self.stopping.wait(pause_s(time.monotonic() - started))
            self.publish()
        except ConfigError as error:
            self._died(str(error))
        except BaseException as error:
            self._died(f"thread publisher: unexpected {type(error).__name__}")
            raise

    def _compact_loop(self) -> None:
        """Beside the publisher: one file of many, where many have come together. A kill in the middle costs nothing."""
        try:
            while not self.stopping.wait(COMPACT_EVERY_S):
                try:
                    self.lake.compact(datetime.now(UTC))
                except SinkUnavailable as error:
                    log.warning("%s", error)
                    self._repair.after_a_failure()
                except OSError as error:
                    log.warning("lake: cannot be compacted now: %s", error.strerror)
        except BaseException as error:
            self._died(f"thread compactor: unexpected {type(error).__name__}")
            raise

    def publish(self) -> None:
        """Makes what was delivered to the lake visible to questions."""
        began_at = time.monotonic()
        try:
            with self.metrics.step(Step.PUBLISH, "lake"):
                self.lake.publish(datetime.now(UTC))
        except SinkUnavailable as error:
            self._lake_problem = str(error)
            log.warning("%s", error)
            self._repair.after_a_failure()
        except OSError as error:
            self._lake_problem = f"lake: cannot be published now: {error.strerror}"
            log.warning("%s", self._lake_problem)
        else:
            self._lake_problem = ""
            self.metrics.published(began_at)


def pause_s(spent_s: float) -> float:
    """How long nothing is published after publishing took so long. What comes in the meantime waits for the pause and
    for the publishing before and after it."""
    pause, in_time = spent_s / PUBLISH_SHARE - spent_s, VISIBLE_WITHIN_S - 2 * spent_s
    if in_time >= PUBLISH_AT_MOST_EVERY_S:
        pause = min(pause, in_time)
    return max(PUBLISH_AT_MOST_EVERY_S, pause)


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="subscription", daemon=True).start()


def _associations_router(settings: Settings) -> APIRouter:
    routes = APIRouter(prefix="/operations", tags=["operations"])

    @routes.get("/associations")
    def get_associations(limit: Annotated[int, Query(ge=1, le=10_000)] = 100) -> list[dict[str, Any]]:
        return list_associations(settings, limit)

    @routes.get("/associations/{association_id}")
    def get_association(association_id: str) -> dict[str, Any]:
        try:
            return show_association(settings, association_id)
        except InvalidQuery as error:
            raise HTTPException(404, str(error)) from None

    return routes


def _uvicorn(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(app, log_config=None, access_log=False, limit_concurrency=200, timeout_keep_alive=10)


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(256)
    except OSError as error:
        raise ConfigError(
            f"api: cannot listen on {host} port {port}: {error.strerror}. Choose another api.host or api.port"
        ) from None
    with listener:
        yield listener
