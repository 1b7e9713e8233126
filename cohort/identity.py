"""Who is the same person: an imaging patient is the clinical one that shares an identifier, if exactly one does.

Shared means system and value are equal and neither is empty. Only what a change can touch is decided again.
"""

from __future__ import annotations

from cohort.keys import key_sql
from cohort.report_links import watch
from cohort.stored import LINK, OWN_IDENTIFIER, columns_of, linked_tables
from cohort.tables import Tables

PATIENTS = """
SELECT *, CASE WHEN _origin = 'bridge' THEN 'imaging' ELSE 'clinical' END AS origin FROM fresh
WHERE _origin <> 'bridge' OR patient_id NOT IN (SELECT imaging_id FROM links)
"""
"""Rows of the table `patient`: an imaging patient who is a clinical one has none of his own."""


def relink(tables: Tables) -> None:
    """Takes in the patients of `keys`, whose identifiers are in `fresh`: their links, their rows everywhere.

    Result  the tables `moved` (imaging patients whose link is another now) and `links` (all links of those touched)
    """
    own = tables.scan(OWN_IDENTIFIER)
    tables.make("touched", f"SELECT system, value FROM {own} SEMI JOIN keys USING (_hash, _key) "
                "UNION SELECT system, value FROM fresh")  # fmt: skip
    tables.replace(OWN_IDENTIFIER, "SELECT _hash, _key FROM keys", "SELECT * FROM fresh")
    own = tables.scan(OWN_IDENTIFIER)
    tables.make(
        "imaging",
        f"""
        SELECT DISTINCT _hash, _key FROM {own} SEMI JOIN touched USING (system, value) WHERE _origin = 'bridge'
        UNION SELECT _hash, _key FROM keys WHERE starts_with(_key, 'bridge/')""",
    )
    tables.make(
        "links",
        f"""
        WITH mine AS (SELECT DISTINCT i._hash, i._key, i.patient_id, i.patient_key, i.system, i.value
                      FROM {own} i SEMI JOIN imaging USING (_hash, _key) WHERE i.system <> '' AND i.value <> ''),
        pairs AS (SELECT DISTINCT mine._hash, mine._key, mine.patient_id AS imaging_id,
                         mine.patient_key AS imaging_key, c.patient_id AS clinical_id
                  FROM mine JOIN {own} c USING (system, value) WHERE c._origin <> 'bridge')
        SELECT _hash, _key, imaging_id, imaging_key, min(clinical_id) AS clinical_id FROM pairs
        GROUP BY _hash, _key, imaging_id, imaging_key
        HAVING count(*) = 1""",
    )
    tables.make("before", f"SELECT * FROM {tables.scan(LINK)} SEMI JOIN imaging USING (_hash, _key)")
    tables.make(
        "moved",
        """
        SELECT coalesce(n._hash, o._hash) AS _hash, coalesce(n._key, o._key) AS _key,
               coalesce(n.imaging_key, o.imaging_key) AS imaging_key, n.clinical_id
        FROM links n FULL JOIN before o ON n._key = o._key WHERE n.clinical_id IS DISTINCT FROM o.clinical_id""",
    )
    tables.replace(LINK, "SELECT _hash, _key FROM moved", "SELECT * FROM links SEMI JOIN moved USING (_key)")
    _identifiers(tables)
    if tables.count("SELECT count(*) FROM moved"):
        for table in linked_tables():
            _move(tables, table)


def _identifiers(tables: Tables) -> None:
    """The table `patient_identifier`: each identifier of a person once, whoever stated it."""
    tables.make(
        "people",
        """
        SELECT DISTINCT patient_id FROM (
            SELECT clinical_id AS patient_id FROM links UNION ALL SELECT clinical_id FROM before
            UNION ALL SELECT substr(_key, instr(_key, '/') + 1) FROM keys
            UNION ALL SELECT substr(_key, instr(_key, '/') + 1) FROM imaging)""",
    )
    link = tables.scan(LINK, ["imaging_id", "clinical_id"])
    tables.make(
        "identifiers",
        f"""
        SELECT DISTINCT coalesce(l.clinical_id, i.patient_id) AS patient_id, i.system, i.value, i.type_code
        FROM {tables.scan(OWN_IDENTIFIER)} i LEFT JOIN {link} l ON i._origin = 'bridge' AND l.imaging_id = i.patient_id
        WHERE coalesce(l.clinical_id, i.patient_id) IN (SELECT patient_id FROM people)""",
    )
    key = key_sql("patient_id")
    tables.replace(
        "patient_identifier",
        f"SELECT {key} AS _hash, patient_id AS _key FROM people",
        f"SELECT *, {key} AS patient_key, {key} AS _hash, patient_id AS _key FROM identifiers",
    )


def _move(tables: Tables, table: str) -> None:
    """Rows of the moved patients in one table, under the person each of them is now."""
    now = "coalesce(m.clinical_id, t._own_patient_id)"
    made = {"patient_id": now, "patient_key": key_sql(now), "subject_key": key_sql(now)}
    made = {column: value for column, value in made.items() if column in columns_of(table)}
    moved = tables.make(
        "moving",
        f"SELECT t.* EXCLUDE ({', '.join(made)}), {', '.join(f'{value} AS {c}' for c, value in made.items())} "
        f"FROM {tables.scan(table)} t JOIN moved m ON t._own_patient_key = m.imaging_key",
    )
    if moved:
        watch(tables, table, "moving", replaced=False)
        tables.replace(table, "SELECT _hash, _key FROM moving", "SELECT * FROM moving")
        watch(tables, table, "moving", replaced=True)
