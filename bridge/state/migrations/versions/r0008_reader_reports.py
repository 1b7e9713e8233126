"""What reports that readers sent say of AI results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "reader_report",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("study_instance_uid", sa.String, nullable=False),
        sa.Column("as_of", sa.Float, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
    )
    op.create_index("reader_report_study", "reader_report", ["study_instance_uid"])
