"""The command `cohort serve`."""

from __future__ import annotations

from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from bridge.api.security import harden
from cohort.api import router
from cohort.options import ConfigOption, LakeOption, desk, lake_to_fill


def serve(
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; loopback until you change it")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8081,
    host_name: Annotated[
        list[str] | None, typer.Option(help="A further name it is called by (Host header); may be repeated")
    ] = None,
) -> None:
    """Serve the cohort API and page alone.

    Example: cohort serve --port 8081
    """
    web = FastAPI(title="Cohort", docs_url=None, redoc_url=None)
    web.include_router(router(lake_to_fill(lake, config_file), desk(lake, config_file)))
    names = {"localhost", "127.0.0.1", "[::1]", host, *(host_name or ())}
    harden(web, sorted(names - {"0.0.0.0", "::"}))  # noqa: S104  (taken out of the allowed Host headers)
    typer.echo(f"Cohort page  http://{host}:{port}/cohort/")
    uvicorn.run(web, host=host, port=port, log_level="warning", access_log=False)
