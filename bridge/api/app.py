"""The HTTP application: FHIR API under /fhir, change feed, operations, and what else it is handed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse

from bridge import __version__
from bridge.api import changefeed, export, operations, subscription
from bridge.api.changefeed import ChangesState
from bridge.api.export import ExportsState
from bridge.api.fhir import FhirState, fhir_app
from bridge.api.operations import OperationsState
from bridge.api.security import harden
from bridge.api.subscription import SubscriptionLimits, SubscriptionsState
from bridge.config import Settings
from bridge.follow.export import ExportLimits


def export_limits(settings: Settings) -> ExportLimits:
    """The bounds of exports as the site wants them."""
    return ExportLimits(settings.api.export_jobs, settings.api.export_hours * 3600, settings.api.export_bytes)


class ApiState(FhirState, OperationsState, ChangesState, ExportsState, SubscriptionsState, Protocol):
    """What of the state the application reads."""


def create_app(settings: Settings, state: ApiState, clock: Callable[[], float], others: Sequence[APIRouter]) -> FastAPI:
    """All routes of one bridge process. Bound to loopback unless configured otherwise; no accounts yet."""
    app = FastAPI(title="Imaging bridge", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(operations.router(state, clock))
    app.include_router(changefeed.router(state))
    for router in others:
        app.include_router(router)

    @app.get("/")
    def addresses() -> JSONResponse:
        base = settings.public_url
        return JSONResponse(
            {
                "fhir": f"{base}/fhir",
                "changefeed": f"{base}/changefeed",
                "ai_results": f"{base}/ai-results",
                "cohort": f"{base}/cohort/",
                "operations": f"{base}/operations/",
                "metrics": f"{base}/metrics",
            }
        )

    fhir = f"{settings.public_url}/fhir"
    exports = export.router(state, fhir, settings.export_dir, export_limits(settings), clock)
    limits = SubscriptionLimits(settings.api.subscriptions, settings.api.subscription_endpoints)
    subscriptions = subscription.router(state, fhir, limits, clock)
    app.mount("/fhir", fhir_app(state, fhir, [exports, subscriptions]))
    harden(app, _host_names(settings))
    return app


def monitoring_app(settings: Settings, monitoring: APIRouter) -> FastAPI:
    """What a process serves that has not the role `serve`: how it is."""
    app = FastAPI(title="Imaging bridge", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(monitoring)
    harden(app, _host_names(settings))
    return app


def _host_names(settings: Settings) -> list[str]:
    public = urlsplit(settings.public_url).hostname or ""
    names = {"localhost", "127.0.0.1", "[::1]", settings.api.host, *settings.api.host_names, public}
    return sorted(names - {"", "0.0.0.0", "::"})  # noqa: S104  (taken out of the allowed Host headers)
