"""What every receiver has noted of its associations. Part of the composition root."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from bridge.config import ReceiverSource, Settings
from bridge.errors import InvalidQuery
from bridge.sources.manifest import association, associations


def list_associations(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """The newest associations of every receiver, newest first."""
    found = [
        one | {"source": name} for name, folder in _manifests(settings).items() for one in associations(folder, limit)
    ]
    return sorted(found, key=lambda one: str(one["id"]), reverse=True)[:limit]


def show_association(settings: Settings, id_: str) -> dict[str, Any]:
    """One association with its objects. Raises InvalidQuery when no receiver had it."""
    for name, folder in _manifests(settings).items():
        with suppress(InvalidQuery):
            return association(folder, id_) | {"source": name}
    raise InvalidQuery("no association is known under this id")


def _manifests(settings: Settings) -> dict[str, Path]:
    receivers = [s.name for s in settings.sources if isinstance(s, ReceiverSource)]
    return {name: settings.data_dir / "spool" / name / "associations" for name in receivers}
