"""Holds the code to the table of who may import what (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "alembic",
    "pydicom", "pynetdicom", "httpx", "fastapi", "starlette", "duckdb", "sqlalchemy", "uvicorn", "typer", "rich",
    "numpy", "pydantic", "fhir", "yaml", "orjson", "jwt", "cryptography",
    "prometheus_client", "opentelemetry", "highdicom", "matplotlib", "pandas", "polars", "pyarrow", "boto3", "botocore",
    "scipy", "sklearn",
}  # fmt: skip

ALLOWED: dict[str, set[str]] = {
    "bridge.errors": set(),
    "bridge.model": set(),
    "bridge.config": {
        "bridge.errors", "bridge.ai_peers", "bridge.config_errors", "bridge.config_servers", "bridge.config_sources",
        "bridge.connections", "bridge.web.answers", "pydantic",
    },
    "bridge.config_errors": {"bridge.connections", "pydantic"},
    "bridge.config_servers": {"bridge.connections", "pydantic"},
    "bridge.config_sources": {"bridge.connections", "pydantic"},
    "bridge.ai_peers": {"bridge.connections", "pydantic"},
    "bridge.connections": {"bridge.web.answers", "pydantic"},
    "bridge.ports": {"bridge.errors", "bridge.model", "bridge.translate"},
    "bridge.translate": {"bridge.errors", "bridge.model", "bridge.translate", "pydicom"},
    "bridge.translate.r5_selections": {"bridge.model", "bridge.translate", "orjson"},
    "bridge.translate.fhir_search": {"bridge.errors", "bridge.translate", "orjson"},
    "bridge.translate.validate": {"bridge.errors", "bridge.model", "fhir", "pydantic"},
    "bridge.findings": {
        "bridge.errors", "bridge.model", "bridge.findings", "bridge.translate", "orjson", "pydantic",
        "pydicom",
    },
    "bridge.findings.note_writing": {"bridge.model", "bridge.findings", "bridge.translate", "highdicom", "pydicom"},
    "bridge.findings.sr_writing": {
        "bridge.errors", "bridge.model", "bridge.findings", "bridge.translate", "highdicom", "numpy", "pydicom",
    },
    "bridge.documents": {
        "bridge.errors", "bridge.model", "bridge.documents", "bridge.findings", "bridge.translate", "pydantic",
        "pydicom",
    },
    "bridge.confined": set(),
    "bridge.document_frames": {"orjson"},
    "bridge.document_worker": {
        "bridge.confined", "bridge.document_frames", "bridge.documents", "bridge.errors", "bridge.model",
    },
    "bridge.document_process": {
        "bridge.confined", "bridge.document_frames", "bridge.document_worker", "bridge.errors", "bridge.model",
        "bridge.observer",
    },
    "bridge.document_reading": {
        "bridge.documents", "bridge.errors", "bridge.model", "bridge.ports", "bridge.translate", "orjson",
    },
    "bridge.code_tables": {"bridge.concept_maps", "bridge.translate"},
    "bridge.concept_maps": {"bridge.errors", "bridge.translate", "orjson"},
    "bridge.sources": {
        "bridge.errors", "bridge.model", "bridge.ports", "bridge.translate", "bridge.sources", "pydicom", "pynetdicom",
        "bridge.web", "httpx", "orjson", "bridge",
    },
    "bridge.sinks": {
        "bridge.errors", "bridge.model", "bridge.sinks", "bridge.translate", "bridge.web", "httpx", "orjson",
    },
    "bridge.web": {"bridge.errors", "bridge.web", "httpx", "orjson"},
    "bridge.web.keys": {"bridge.web", "orjson", "jwt", "cryptography"},
    "bridge.web.scopes": set(),
    "bridge.web.multipart": set(),
    "bridge.state": {
        "bridge.errors", "bridge.model", "bridge.ports", "bridge.translate", "bridge.state", "bridge.follow.ports",
        "alembic", "sqlalchemy", "orjson",
    },
    "bridge.reconcile": {
        "bridge.errors", "bridge.model", "bridge.ports", "bridge.reconcile", "bridge.translate",
    },
    "bridge.archiving": {
        "bridge.archiving", "bridge.errors", "bridge.findings", "bridge.model", "bridge.ports", "bridge.settling",
        "bridge.sources.peer", "bridge.sources.scu", "bridge.translate", "bridge.web", "orjson",
    },
    "bridge.model_calls": {
        "bridge.errors", "bridge.findings", "bridge.intake", "bridge.model", "bridge.model_calls", "bridge.ports",
        "bridge.settling", "bridge.translate", "bridge.web", "orjson",
    },
    "bridge.sign_in": {"bridge.ai_peers", "bridge.config", "bridge.connections", "bridge.web", "httpx"},
    "bridge.intake": {"bridge.errors", "bridge.findings", "bridge.model", "bridge.translate"},
    "bridge.saved_files": {"bridge.sources.spool"},
    "bridge.roles": {"bridge.config", "bridge.errors", "bridge.model", "bridge.state"},
    "bridge.rounds": set(),
    "bridge.observer": set(),
    "bridge.telemetry": {
        "bridge", "bridge.errors", "bridge.observer", "bridge.ports", "bridge.telemetry", "orjson",
        "prometheus_client",
    },
    "bridge.telemetry.traces": {"bridge", "bridge.observer", "opentelemetry"},
    "bridge.settling": {"bridge.errors", "bridge.observer", "bridge.ports"},
    "bridge.sync": {
        "bridge.document_reading", "bridge.documents", "bridge.errors", "bridge.findings", "bridge.model",
        "bridge.observer", "bridge.ports", "bridge.rounds", "bridge.settling", "bridge.translate",
    },
    "bridge.loops": {"bridge.errors", "bridge.model", "bridge.ports", "bridge.sync"},
    "bridge.follow": {
        "bridge.errors", "bridge.model", "bridge.ports", "bridge.translate", "bridge.follow", "httpx", "orjson",
    },
    "bridge.api": {
        "bridge", "bridge.errors", "bridge.model", "bridge.ports", "bridge.config", "bridge.translate", "bridge.api",
        "bridge.documents", "bridge.findings", "bridge.follow", "bridge.intake", "bridge.reconcile",
        "bridge.telemetry.health",
        "fastapi", "starlette", "pydantic", "orjson",
    },
    "cohort.kinds": set(),
    "cohort.question": set(),
    "cohort.codes": {"bridge.errors"},
    "cohort.places": {"bridge.errors"},
    "cohort.returns": {"bridge.errors", "cohort.kinds"},
    "cohort.question_document": {
        "bridge.errors", "cohort.codes", "cohort.kinds", "cohort.places", "cohort.question", "cohort.returns",
    },
    "cohort.question_schema": {"cohort.kinds", "cohort.places", "cohort.question_document", "cohort.returns"},
    "cohort.column_tests": {"cohort.expression", "cohort.kinds", "cohort.question"},
    "cohort.event_rows": {
        "cohort.column_tests", "cohort.expression", "cohort.kinds", "cohort.question", "cohort.relation",
        "cohort.returns", "cohort.study_rows",
    },
    "cohort.question_rows": {
        "cohort.column_tests", "cohort.event_rows", "cohort.expression", "cohort.kinds", "cohort.question",
        "cohort.relation",
    },
    "cohort.study_rows": {"cohort.expression", "cohort.kinds", "cohort.relation", "cohort.returns"},
    "cohort.question_answer": {
        "cohort.column_tests", "cohort.event_rows", "cohort.expression", "cohort.kinds", "cohort.question",
        "cohort.question_rows", "cohort.relation", "cohort.returns", "cohort.study_rows",
    },
    "cohort.question_members": {
        "cohort.event_rows", "cohort.expression", "cohort.kinds", "cohort.question", "cohort.question_rows",
        "cohort.relation", "cohort.returns",
    },
    "cohort.question_words": {"cohort.question"},
    "cohort.attrition": {
        "cohort.event_rows", "cohort.expression", "cohort.question", "cohort.question_rows", "cohort.question_words",
        "cohort.relation", "cohort.returns",
    },
    "cohort.comparison": {
        "cohort.column_tests", "cohort.event_rows", "cohort.expression", "cohort.question", "cohort.question_rows",
        "cohort.relation", "cohort.returns",
    },
    "cohort.outcome": {"cohort.question"},
    "cohort.outcome_document": {
        "bridge.errors", "cohort.codes", "cohort.kinds", "cohort.outcome", "cohort.places", "cohort.question",
        "cohort.question_document", "cohort.returns",
    },
    "cohort.outcome_schema": {
        "cohort.kinds", "cohort.outcome", "cohort.outcome_document", "cohort.places", "cohort.question_schema",
        "cohort.returns",
    },
    "cohort.outcome_predictions": {
        "cohort.column_tests", "cohort.event_rows", "cohort.expression", "cohort.outcome", "cohort.relation",
    },
    "cohort.outcome_readings": {
        "cohort.column_tests", "cohort.expression", "cohort.outcome", "cohort.outcome_predictions", "cohort.relation",
    },
    "cohort.outcome_rows": {
        "bridge.errors", "cohort.event_rows", "cohort.expression", "cohort.kinds", "cohort.outcome",
        "cohort.outcome_predictions", "cohort.outcome_readings", "cohort.question", "cohort.question_rows",
        "cohort.relation", "cohort.returns",
    },
    "cohort.outcome_oracle": {"cohort.kinds", "cohort.oracle", "cohort.outcome", "cohort.question"},
    "cohort.oracle": {"cohort.kinds", "cohort.question", "cohort.returns"},
    "cohort.fhirpath": {"bridge.errors", "cohort.fhirpath_syntax", "cohort.path_types"},
    "cohort.path_types": {"bridge.errors", "cohort.fhirpath_syntax"},
    "cohort.fhirpath_syntax": {"bridge.errors"},
    "cohort.view": {"bridge.errors", "cohort.fhirpath", "cohort.fhirpath_syntax", "cohort.path_types"},
    "cohort.path_value": {"cohort.expression"},
    "cohort.path_operators": {"bridge.errors", "cohort.expression", "cohort.path_value"},
    "cohort.path_boundary": {"bridge.errors", "cohort.expression", "cohort.path_value"},
    "cohort.path_sql": {
        "bridge.errors", "cohort.expression", "cohort.fhirpath_syntax", "cohort.path_boundary", "cohort.path_operators",
        "cohort.path_types", "cohort.path_value",
    },
    "cohort.view_repeat": {
        "bridge.errors", "cohort.expression", "cohort.relation", "cohort.path_sql", "cohort.path_value",
    },
    "cohort.view_sql": {
        "bridge.errors", "cohort.expression", "cohort.relation", "cohort.view", "cohort.view_repeat", "cohort.path_sql",
        "cohort.path_value",
    },
    "cohort.view_request": {"bridge.errors"},
    "cohort.view_export": {"bridge.errors"},
    "cohort.elements": {"bridge.errors", "cohort.path_sql", "fhir"},
    "cohort.expression": {"cohort.relation"},
    "cohort.relation": {"cohort.expression"},
    "cohort.dialects": {"bridge.errors", "cohort.expression", "cohort.relation", "cohort.dialects"},
    "cohort.keys": set(),
    "cohort.layers": set(),
    "cohort.delta": {"orjson"},
    "cohort.fetch": {
        "bridge.command_line", "bridge.config", "bridge.connections", "bridge.errors", "bridge.sources", "bridge.web",
        "cohort.fetch", "cohort.manifest", "cohort.options", "cohort.selection", "httpx", "rich", "typer",
    },
    "cohort.stored": {"cohort.kinds", "cohort.schema"},
    "cohort.identity": {"cohort.keys", "cohort.report_links", "cohort.stored", "cohort.tables"},
    "cohort.report_links": {"cohort.kinds", "cohort.stored", "cohort.study_modalities", "cohort.tables"},
    "cohort.study_modalities": {"cohort.kinds", "cohort.tables"},
    "cohort.bulk": {"bridge.errors", "bridge.web", "cohort.bulk_job", "httpx", "orjson"},
    "cohort.bulk_job": {"bridge.errors", "cohort.store", "orjson"},
    "cohort.store": {"bridge.errors", "cohort.store"},
    "cohort.store.place": {"bridge.config", "bridge.errors", "cohort.store"},
    "cohort.store.s3": {"bridge.errors", "bridge.web", "cohort.store", "boto3", "botocore"},
    "cohort.generation": {"bridge.errors", "cohort.kinds", "cohort.layers", "cohort.schema", "cohort.store", "orjson"},
    "cohort.arrivals": {"cohort.delta", "cohort.keys", "cohort.layers", "cohort.tables", "duckdb", "orjson"},
    "cohort.ndjson": {"cohort.arrivals", "cohort.keys", "cohort.layers", "duckdb"},
    "cohort.flatten": {
        "bridge.errors", "cohort.delta", "cohort.keys", "cohort.schema", "cohort.tables", "cohort.view_columns",
        "duckdb", "orjson",
    },
    "cohort.view_columns": {
        "bridge.errors", "cohort.dialects", "cohort.elements", "cohort.expression", "cohort.path_types",
        "cohort.schema", "cohort.view_sql",
    },
    "cohort.tally": {
        "bridge.errors", "cohort.generation", "cohort.lake", "cohort.tables", "duckdb", "orjson",
    },
    "cohort.saved": {"bridge.errors", "cohort.generation", "cohort.store", "orjson"},
    "cohort.verified": {"cohort.generation", "cohort.lake", "cohort.store"},
    "cohort.mend": {
        "bridge.errors", "cohort.fold", "cohort.generation", "cohort.lake", "cohort.layers", "cohort.schema",
        "cohort.stored", "cohort.tables", "cohort.verified",
    },
    "cohort.clinical": {"bridge.errors", "cohort.delta", "cohort.lake", "cohort.ndjson", "orjson"},
    "cohort.functions": set(),
    "cohort.gate": {"bridge.errors", "cohort.functions"},
    "cohort.privacy": {"bridge.errors"},
    "cohort.pseudonym": {"bridge.errors"},
    "cohort.disclosure": {
        "cohort.kinds", "cohort.privacy", "cohort.pseudonym", "cohort.returns", "cohort.schema",
    },
    "cohort.outcome_shown": {
        "cohort.dialects", "cohort.disclosure", "cohort.outcome_predictions", "cohort.outcome_rows", "cohort.privacy",
        "cohort.pseudonym", "cohort.relation",
    },
    "cohort.frames": set(),
    "cohort.workers": {"bridge.confined", "cohort.frames", "cohort.spill", "cohort.watch", "orjson"},
    "cohort.outcome_changes": {"bridge.errors"},
    "cohort.outcome_fhir": {"cohort.answer", "orjson"},
    "cohort.feedback": {
        "bridge.errors", "cohort.answer", "cohort.catalogue", "cohort.generation", "cohort.outcome",
        "cohort.outcome_changes", "cohort.outcome_rows", "cohort.outcome_shown", "cohort.privacy", "cohort.pseudonym",
        "cohort.relation", "cohort.sandbox", "orjson",
    },
    "cohort.similar": {
        "bridge.errors", "cohort.answer", "cohort.catalogue", "cohort.dialects", "cohort.generation", "cohort.outcome",
        "cohort.outcome_rows", "cohort.privacy", "cohort.pseudonym", "cohort.question_members", "cohort.returns",
        "cohort.sandbox",
    },
    "cohort.feedback_scores": {
        "bridge.errors", "cohort.answer", "cohort.feedback", "cohort.generation", "cohort.outcome_rows",
        "cohort.outcome_shown", "cohort.sandbox", "cohort.scores",
    },
    "cohort.question_shown": {
        "bridge.errors", "cohort.answer", "cohort.comparison", "cohort.dialects", "cohort.disclosure",
        "cohort.event_rows", "cohort.expression", "cohort.kinds", "cohort.privacy", "cohort.pseudonym",
        "cohort.question", "cohort.question_answer", "cohort.question_rows", "cohort.relation", "cohort.returns",
    },
    "cohort.counts_expression": {"bridge.errors", "cohort.disclosure"},
    "cohort.counts": {"bridge.errors", "cohort.counts_expression", "cohort.gate", "cohort.keys", "cohort.privacy"},
    "cohort.scores": {
        "bridge.errors", "cohort.answer", "cohort.plots", "cohort.privacy", "cohort.scores", "matplotlib", "numpy",
        "scipy", "sklearn",
    },
    "cohort.scores.asked": {"bridge.errors"},
    "cohort.scores.rows": {"bridge.errors", "numpy", "pyarrow"},
    "cohort.turns": {"bridge.errors"},
    "bridge.command_line": {"bridge.errors", "rich", "typer"},
    "cohort.query_log": {"bridge.errors", "cohort.answer", "orjson"},
    "hospital": {"hospital", "pydicom", "numpy", "orjson"},
}  # fmt: skip
"""module or package → what it may import besides the standard library. Modules not named: see the tests below."""

COMPOSITION = (
    "bridge.compose",
    "bridge.archives",
    "bridge.demo",
    "bridge.import_files",
    "bridge.reconcile_command",
    "bridge.verify_command",
    "bridge.lake_repair",
    "bridge.backup",
    "bridge.backup_command",
)
DUCKDB = (
    "cohort.engine", "cohort.fold", "cohort.flatten", "cohort.arrivals", "cohort.ndjson", "cohort.tables",
    "cohort.compaction", "cohort.tally", "cohort.worker",
)  # fmt: skip
FASTAPI = (
    "bridge.api", "bridge.compose", "bridge.monitoring", "cohort.api", "cohort.feedback_api", "cohort.job_api",
    "cohort.out_api", "cohort.responses", "cohort.scores_api", "cohort.serve_command", "cohort.view_api",
)  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("bridge", "cohort", "hospital"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, path


@cache
def text(path: Path) -> str:
    return path.read_text("utf-8")


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(text(path))))


def imports(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module in ("bridge", "cohort"))


def within(name: str, packages: object) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in packages)  # type: ignore[attr-defined]


def ours(name: str) -> bool:
    return name.partition(".")[0] in OUTSIDE | {"bridge", "cohort", "hospital", "mappings"}


CASES = [pytest.param(name, path, id=name) for name, path in modules()]


@pytest.mark.parametrize(("name", "path"), CASES)
def test_a_module_imports_only_what_its_row_allows(name: str, path: Path) -> None:
    rows = [row for row in ALLOWED if within(name, [row])]
    if not rows:
        return
    allowed = ALLOWED[max(rows, key=len)]
    for imported in filter(ours, imports(path)):
        exact = imported == "bridge" or imported.startswith("bridge.__version__")
        fine = (exact and "bridge" in allowed) or within(imported, allowed - {"bridge"})
        assert fine or imported in ("bridge", "cohort"), f"{name} may not import {imported}"


@pytest.mark.parametrize(("name", "path"), CASES)
def test_bridge_never_imports_cohort_but_where_everything_is_put_together(name: str, path: Path) -> None:
    if within(name, ["bridge"]) and name not in COMPOSITION:
        assert not [i for i in imports(path) if within(i, ["cohort", "hospital"])]


@pytest.mark.parametrize(("name", "path"), CASES)
def test_libraries_stay_in_the_files_that_adapt_them(name: str, path: Path) -> None:
    found = set(imports(path))
    if not within(name, DUCKDB):
        assert not [i for i in found if within(i, ["duckdb"])]
    if not within(name, FASTAPI):
        assert not [i for i in found if within(i, ["fastapi", "starlette"])]
    if name != "bridge.web.keys":
        assert not [i for i in found if within(i, ["jwt", "cryptography"])]
    if name not in ("cohort.timeline_plot", "cohort.plots", "cohort.scores.plots"):
        assert not [i for i in found if within(i, ["matplotlib"])]
    if name not in ("cohort.opened", "cohort.engine.arrow_ipc", "cohort.scores.rows"):
        assert not [i for i in found if within(i, ["pandas", "polars", "pyarrow"])]
    if not within(name, ["cohort.scores"]):
        assert not [i for i in found if within(i, ["scipy", "sklearn"])]
    if not within(name, ["bridge.telemetry", "bridge.monitoring"]):
        assert not [i for i in found if within(i, ["prometheus_client"])]
    if name != "bridge.telemetry.traces":
        assert not [i for i in found if within(i, ["opentelemetry"])]
    if not within(name, ["bridge.state"]):
        assert not [i for i in found if within(i, ["sqlalchemy"])]


@pytest.mark.parametrize(("name", "path"), CASES)
def test_nobody_asks_past_the_desk(name: str, path: Path) -> None:
    """The desk keeps to what people may see and logs who asked; the sandbox behind it answers exactly."""
    if name == "cohort.desk":
        return
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module == "cohort.sandbox":
            assert {alias.name for alias in node.names} <= {"Limits", "Run", "Task"}
        if isinstance(node, ast.ImportFrom) and node.module == "cohort.engine.duckdb":
            assert name == "cohort.worker"
        if isinstance(node, ast.ImportFrom) and node.module in ("cohort", "cohort.engine"):
            assert not {alias.name for alias in node.names} & {"sandbox", "spark"}
        assert not (isinstance(node, ast.ImportFrom) and node.module == "cohort.engine.spark")


@pytest.mark.parametrize(("name", "path"), CASES)
def test_no_file_is_named_for_nothing(name: str, path: Path) -> None:
    assert not {"utils", "helpers", "common", "base", "manager"} & set(name.split("."))


@pytest.mark.parametrize(("name", "path"), CASES)
def test_only_config_reads_the_environment(name: str, path: Path) -> None:
    if name != "bridge.config":
        assert "os.environ" not in text(path)
        assert "getenv(" not in text(path)
