"""The command `cohort`: questions, SQL, tables, clinical data."""

from __future__ import annotations

from bridge.command_line import program
from bridge.command_line import run as run_program

app = program(
    "Questions across clinical and imaging data.",
    {
        "ask": "cohort.ask_command:ask",
        "compare": "cohort.ask_command:compare",
        "sql": "cohort.ask_command:sql",
        "shell": "cohort.ask_command:shell",
        "questions": "cohort.list_command:questions",
        "tables": "cohort.list_command:tables",
        "group": "cohort.out_commands:group",
        "omop": "cohort.out_commands:omop",
        "manifest": "cohort.out_commands:manifest",
        "fetch": "cohort.fetch.command:fetch",
        "timeline": "cohort.out_commands:timeline",
        "outcomes": "cohort.feedback_command:outcomes",
        "similar": "cohort.feedback_command:similar",
        "scores": "cohort.scores_command:scores",
        "load": "cohort.lake_cli:load",
        "parked": "cohort.lake_cli:parked",
        "compact": "cohort.lake_cli:compact",
        "log": "cohort.list_command:log",
        "serve": "cohort.serve_command:serve",
        "generations": "cohort.lake_cli:generations",
        "view": "cohort.view_cli:app",
    },
)


def main() -> None:
    """Entry point."""
    run_program(app, "cohort")
