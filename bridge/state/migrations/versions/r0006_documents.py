"""What was read of the documents of studies, by source."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "document",
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("study_instance_uid", sa.String, primary_key=True),
        sa.Column("sop_instance_uid", sa.String, primary_key=True),
        sa.Column("series_instance_uid", sa.String, nullable=False),
        sa.Column("sop_class_uid", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("content", sa.LargeBinary),
        sa.Column("read_at", sa.Float, nullable=False),
    )
    op.create_index("document_study", "document", ["study_instance_uid"])
    op.create_index("document_instance", "document", ["sop_instance_uid"])
