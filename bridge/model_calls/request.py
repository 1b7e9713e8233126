"""What a model is sent. PURE: same in, same out but for the token. It says nothing of the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from bridge.model_calls.rule import CalledSeries
from bridge.translate.uids import resource_id


@dataclass(frozen=True)
class Access:
    """How the images of one study are read: `wado_rs` base, and a bearer token until `expires_at` (seconds). Without a
    token the model needs rights of its own there; without an address no archive of the study offers WADO-RS."""

    wado_rs: str
    token: str
    expires_at: float


def run_id(name: str, version: str, study_instance_uid: str, content: str) -> str:
    """The run of a model on a content of a study: however often it is called for it, the same run."""
    return f"{name}-{resource_id('model run', name, version, study_instance_uid, content)}"


def request(
    run: str, version: str, study_instance_uid: str, series: Sequence[CalledSeries], access: Access, reply_to: str
) -> bytes:
    """The body of a call, JSON."""
    study = f"{access.wado_rs}/studies/{study_instance_uid}" if access.wado_rs else ""
    expires = datetime.fromtimestamp(access.expires_at, UTC).isoformat(timespec="seconds")
    return orjson.dumps(
        {
            "run_id": run,
            "model_version": version,
            "study_instance_uid": study_instance_uid,
            "wado_rs": {
                "study": study or None,
                "token": access.token or None,
                "expires_at": expires if access.token else None,
            },
            "series": [
                {
                    "series_instance_uid": s.series_instance_uid,
                    "modality": s.modality,
                    "number_of_instances": s.number_of_instances,
                    "wado_rs": f"{study}/series/{s.series_instance_uid}" if study else None,
                }
                for s in series
            ],
            "reply_to": reply_to,
        }
    )
