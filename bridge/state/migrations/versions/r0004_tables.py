"""The tables of version 4; databases of versions 1 to 3, which counted in `setting`, become the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from alembic import op
from sqlalchemy import inspect, text

revision = "0004"
down_revision = None

STEPS: Mapping[int, Sequence[str]] = {
    1: (
        "ALTER TABLE holding ADD COLUMN procedure_steps {binary}",
        "CREATE INDEX file_instance ON file (source, sop_instance_uid)",
    ),
    2: (
        # two writers at the same time could give one revision twice; numbers only grow here
        "UPDATE resource_version SET revision = numbered.n FROM (SELECT resource_type AS t, id AS i, version AS v, "
        "row_number() OVER (ORDER BY revision, resource_type, id, version) AS n FROM resource_version) AS numbered "
        "WHERE numbered.t = resource_type AND numbered.i = id AND numbered.v = version AND revision <> numbered.n",
        "UPDATE resource SET revision = newest.revision FROM resource_version AS newest "
        "WHERE newest.resource_type = resource.resource_type AND newest.id = resource.id "
        "AND newest.version = resource.version AND newest.revision <> resource.revision",
        "CREATE UNIQUE INDEX resource_version_revision ON resource_version (revision)",
        "CREATE INDEX resource_version_type ON resource_version (resource_type, revision)",
        "ALTER TABLE resource ADD COLUMN study_instance_uid VARCHAR",
        "UPDATE resource SET study_instance_uid = (SELECT min(substr(x.value, 9)) FROM resource_index AS x "
        "WHERE x.resource_type = resource.resource_type AND x.id = resource.id AND x.param = 'identifier' "
        "AND x.system = 'urn:dicom:uid' AND substr(x.value, 1, 8) = 'urn:oid:') WHERE resource_type = 'ImagingStudy'",
    ),
    3: (
        "DROP INDEX work_due",  # many keys that are due at one time were sorted anew for every claim
        "CREATE INDEX work_next ON work (queue, parked, due_at, key)",
    ),
}
"""Version → what makes the next version of it."""

_WORDS = {
    "sqlite": {"binary": "BLOB", "false": "0", "serial": "INTEGER"},
    "postgresql": {"binary": "BYTEA", "false": "false", "serial": "BIGSERIAL"},
}


def upgrade() -> None:
    connection = op.get_bind()
    words = _WORDS[connection.dialect.name]
    if inspect(connection).has_table("setting"):
        counted = connection.execute(text("SELECT value FROM setting WHERE name = 'schema_version'")).scalar()
        for step in range(int(counted or revision), int(revision)):
            for statement in STEPS[step]:
                connection.exec_driver_sql(statement.format(**words))
    tables = Path(__file__).with_name("tables_0004.sql").read_text("utf-8").partition("\n")[2]
    for statement in tables.format(**words).split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
    for name, value in (("schema_version", "4"), ("oldest_program", "4")):  # read by programs of version 3, of this one
        connection.execute(text("DELETE FROM setting WHERE name = :name"), {"name": name})
        connection.execute(text("INSERT INTO setting VALUES (:name, :value)"), {"name": name, "value": value})
