"""The tables of the state. Times are seconds since the epoch, UTC; JSON is kept as bytes from orjson.

What changes here needs a revision in `migrations`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData()

setting = Table(
    "setting",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

work = Table(
    "work",
    metadata,
    Column("queue", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("first_marked_at", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("leased_by", String),
    Column("leased_until", Float),
    Column("parked", Boolean, nullable=False, server_default=false()),
    Column("error", Text, nullable=False, server_default=""),
    Column("evidence", LargeBinary),
    Index("work_next", "queue", "parked", "due_at", "key"),
)

cursor = Table(
    "cursor",
    metadata,
    Column("source", String, primary_key=True),
    Column("position", Text, nullable=False),
)

holding = Table(
    "holding",
    metadata,
    Column("source", String, primary_key=True),
    Column("study_instance_uid", String, primary_key=True),
    Column("hint", Integer, nullable=False),
    Column("read_hint", Integer, nullable=False),
    Column("instances", Integer, nullable=False),
    Column("headers", LargeBinary),
    Column("digest", String, nullable=False),
    Column("rejected", LargeBinary),
    Column("read_at", Float),
    Column("procedure_steps", LargeBinary),
    Index("holding_study", "study_instance_uid"),
    Index("holding_instances", "source", "instances", "hint", "read_hint"),
)

file = Table(
    "file",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("source", String, nullable=False),
    Column("path", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("study_instance_uid", String, nullable=False),
    Column("sop_instance_uid", String, nullable=False),
    UniqueConstraint("source", "path"),
    Index("file_study", "source", "study_instance_uid"),
    Index("file_instance", "source", "sop_instance_uid"),
)

study = Table(
    "study",
    metadata,
    Column("study_instance_uid", String, primary_key=True),
    Column("patient_key", String, nullable=False),
    Column("patient_rank", String, nullable=False),
    Column("patient", LargeBinary, nullable=False),
    Column("resources", LargeBinary, nullable=False),
    Column("remarks", LargeBinary, nullable=False),
    Column("digest", String, nullable=False),
    Index("study_patient", "patient_key", "patient_rank", "study_instance_uid"),
)

resource = Table(
    "resource",
    metadata,
    Column("resource_type", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("last_updated", Float, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("digest", String, nullable=False),
    Column("study_instance_uid", String),
    Index("resource_updated", "resource_type", "last_updated", "id"),
    Index("resource_revision", "revision"),
)

delivered = Table(
    "delivered",
    metadata,
    Column("sink", String, primary_key=True),
    Column("study_instance_uid", String, primary_key=True),
    Column("reference", Text, nullable=False),
    Column("version_id", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("delivered_at", Float, nullable=False),
)

resource_version = Table(
    "resource_version",
    metadata,
    Column("resource_type", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("last_updated", Float, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("content", LargeBinary),
    Index("resource_version_revision", "revision", unique=True),
    Index("resource_version_type", "resource_type", "revision"),
)

resource_index = Table(
    "resource_index",
    metadata,
    Column("resource_type", String, nullable=False),
    Column("id", String, nullable=False),
    Column("param", String, nullable=False),
    Column("system", String, nullable=False),
    Column("value", String, nullable=False),
    Column("low", Float),
    Column("high", Float),
    Index("resource_index_owner", "resource_type", "id"),
    Index("resource_index_value", "resource_type", "param", "value"),
    Index("resource_index_low", "resource_type", "param", "low"),
)

ai_result = Table(
    "ai_result",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("study_instance_uid", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("received_at", Float, nullable=False),
    Index("ai_result_study", "study_instance_uid"),
)

ai_result_review = Table(
    "ai_result_review",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
    Column("received_at", Float, nullable=False),
)

reader_report = Table(
    "reader_report",
    metadata,
    Column("key", String, primary_key=True),
    Column("study_instance_uid", String, nullable=False),
    Column("as_of", Float, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("received_at", Float, nullable=False),
    Index("reader_report_study", "study_instance_uid"),
)

document = Table(
    "document",
    metadata,
    Column("source", String, primary_key=True),
    Column("study_instance_uid", String, primary_key=True),
    Column("sop_instance_uid", String, primary_key=True),
    Column("series_instance_uid", String, nullable=False),
    Column("sop_class_uid", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("content", LargeBinary),
    Column("read_at", Float, nullable=False),
    Index("document_study", "study_instance_uid"),
    Index("document_instance", "sop_instance_uid"),
)

stored_document = Table(
    "stored_document",
    metadata,
    Column("archive", String, primary_key=True),
    Column("sop_instance_uid", String, primary_key=True),
    Column("study_instance_uid", String, nullable=False),
    Column("stored_at", Float, nullable=False),
    Index("stored_document_study", "archive", "study_instance_uid"),
)

model_call = Table(
    "model_call",
    metadata,
    Column("model", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("study_instance_uid", String, primary_key=True),
    Column("content", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("results", Integer, nullable=False),
    Column("answered_at", Float, nullable=False),
)

export_job = Table(
    "export_job",
    metadata,
    Column("id", String, primary_key=True),
    Column("request", Text, nullable=False),
    Column("resource_types", LargeBinary, nullable=False),
    Column("since", Float, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("transaction_time", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("written", Integer, nullable=False),
    Column("finished_at", Float),
    Column("files", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
)

subscription = Table(
    "subscription",
    metadata,
    Column("id", String, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("fhir_version", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("status", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("error", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("greeted_at", Float, nullable=False),
    Column("notified_at", Float, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failing_since", Float),
)

subscription_event = Table(
    "subscription_event",
    metadata,
    Column("subscription", String, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)
