"""The commands `bridge init`, `bridge check` and `bridge jwks`. Part of the composition root."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from bridge.errors import ConfigError
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of
from bridge.sign_in import fhir_server_sign_in, signing_keys


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it")] = Path("bridge.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file")] = False,
) -> None:
    """Write a commented configuration file.

    Example: bridge init bridge.toml
    """
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; --force replaces it")
    path.write_text((files("bridge") / "bridge.toml").read_text("utf-8"), "utf-8")
    typer.echo(f"Wrote {path}. Check it with: bridge check --config {path}")


def check(config_file: ConfigOption = None, data_dir: DataOption = DATA_DIR, as_json: JsonOption = False) -> None:
    """Check the configuration without starting anything.

    Example: bridge check --config bridge.toml
    """
    settings = settings_of(config_file, data_dir)
    for sink in settings.sinks:
        fhir_server_sign_in(sink).close()
    if as_json:
        typer.echo(settings.model_dump_json(indent=2))
        return
    typer.echo(f"The configuration is valid: {len(settings.sources)} sources, {len(settings.sinks)} FHIR servers")


def jwks(config_file: ConfigOption = None) -> None:
    """Print the public keys that FHIR servers are to know the bridge by (JWK Set, RFC 7517), for registration.

    Example: bridge jwks --config bridge.toml
    """
    keys = [key.public() for key in signing_keys(settings_of(config_file, DATA_DIR))]
    if not keys:
        raise ConfigError("sinks: none signs in with a key; give one of them smart = { … }")
    typer.echo(json.dumps({"keys": keys}, indent=2))
