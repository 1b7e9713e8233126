"""Documents stored in archives, and calls of models that were answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "stored_document",
        sa.Column("archive", sa.String, primary_key=True),
        sa.Column("sop_instance_uid", sa.String, primary_key=True),
        sa.Column("study_instance_uid", sa.String, nullable=False),
        sa.Column("stored_at", sa.Float, nullable=False),
    )
    op.create_index("stored_document_study", "stored_document", ["archive", "study_instance_uid"])
    op.create_table(
        "model_call",
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("study_instance_uid", sa.String, primary_key=True),
        sa.Column("content", sa.String, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("results", sa.Integer, nullable=False),
        sa.Column("answered_at", sa.Float, nullable=False),
    )
