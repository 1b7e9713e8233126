"""The command `bridge`. With `bridge.compose`, the composition root."""

from __future__ import annotations

import gc

from bridge.command_line import program
from bridge.command_line import run as run_program

app = program(
    "Keeps FHIR ImagingStudy, and a table of facts, true to what DICOM archives hold.",
    {
        "init": "bridge.settings_command:init",
        "run": "bridge.run_command:run",
        "check": "bridge.settings_command:check",
        "jwks": "bridge.settings_command:jwks",
        "status": "bridge.status_command:status",
        "study": "bridge.status_command:study",
        "import": "bridge.import_command:import_",
        "map": "bridge.map_command:map_files",
        "dedupe": "bridge.dedupe_command:dedupe",
        "tail": "bridge.tail_command:tail",
        "reconcile": "bridge.reconcile_command:reconcile",
        "verify": "bridge.verify_command:verify",
        "backup": "bridge.backup_command:backup",
        "restore": "bridge.backup_command:restore",
        "backfill": "bridge.backfill_command:backfill",
        "demo": "bridge.demo_command:demo",
        "parked": "bridge.parked_command:parked_app",
        "associations": "bridge.associations_command:associations_app",
    },
)

COLLECT_AFTER = 10_000
"""Objects after which Python looks for cycles. Headers are many objects without any: at Python's own 700, looking for
them takes a fifth of the time that a study of 20,000 instances takes."""


def main() -> None:
    """Entry point."""
    gc.set_threshold(COLLECT_AFTER)
    run_program(app, "bridge")
