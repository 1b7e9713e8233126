"""Brings the tables of an older program to what this one needs. Steps are added, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, insert, select, update

from bridge.errors import ConfigError
from bridge.state.schema import SCHEMA_VERSION, setting

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
    3: (),  # rows are sealed when the database opens (`seal`): a program that cannot do that may not write any more
}
"""Version → what makes the next version of it. New tables need nothing here: they are made when the database opens."""

_BINARY = {"sqlite": "BLOB", "postgresql": "BYTEA"}


def migrate(connection: Connection) -> None:
    """Does every step that is missing, within the transaction of the connection: all of them or none.

    Raises  ConfigError when the database is a newer program's
    """
    mine = setting.c.name == "schema_version"
    found = connection.execute(select(setting.c.value).where(mine).with_for_update()).scalar()
    if found is None:
        connection.execute(insert(setting).values(name="schema_version", value=str(SCHEMA_VERSION)))
        return
    version = int(found)
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"state_url: the database has schema version {version}, this program knows {SCHEMA_VERSION}: "
            "use the newer program"
        )
    for step in range(version, SCHEMA_VERSION):
        for statement in STEPS[step]:
            connection.exec_driver_sql(statement.format(binary=_BINARY[connection.dialect.name]))
    connection.execute(update(setting).where(mine).values(value=str(SCHEMA_VERSION)))
