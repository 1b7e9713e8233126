"""What several resources decide together. Which study a report is about: by Study Instance UID, by reference, or by an
accession number that designates exactly one study of the same patient. Which studies are disputed: their ImagingStudies
and the reports about them name several patients, or none. And a study's modalities. Only what a change can touch is
decided again."""

from __future__ import annotations

from cohort import study_modalities
from cohort.kinds import ABOUT_STUDY, DISPUTED
from cohort.stored import OWN_REPORT_STUDY, told_apart_by
from cohort.tables import Tables, parts

_LINKS = "diagnostic_report_study"
_READ = "study_instance_uid, study_key, imaging_study_id, accession_number, accession_system, patient_key"
_COPIED = ", ".join(ABOUT_STUDY)
_WATCHED = {
    "imaging_study": ("touched_study", "study_key, imaging_study_id, patient_key, accession_number, _hash"),
    OWN_REPORT_STUDY: ("touched_report", "_hash, _key"),
}


def begin(tables: Tables) -> None:
    """Nothing is touched yet."""
    tables.make("touched_study", "SELECT 0::BIGINT AS study_key, '' AS imaging_study_id, 0::BIGINT AS patient_key, "
                "'' AS accession_number, 0::BIGINT AS _hash WHERE false")  # fmt: skip
    tables.make("touched_report", "SELECT 0::BIGINT AS _hash, '' AS _key WHERE false")


def watch(tables: Tables, table: str, keys: str, *, replaced: bool) -> None:
    """Remembers the rows of a table with the keys that a temporary table holds: called before they are `replaced`, and
    after that."""
    if table in _WATCHED:
        name, columns = _WATCHED[table]
        rows = (
            f"SELECT {columns} FROM {tables.scan(table, top=replaced)} SEMI JOIN {keys} USING ({told_apart_by(table)})"
        )
        if table == OWN_REPORT_STUDY:
            rows = f"SELECT _hash, _key FROM {keys}"
        tables.db.execute(f"INSERT INTO {name} {rows}")


def decide_all(tables: Tables) -> None:
    """Decides all of it anew, part by part of the patients."""
    tables.layers |= {_LINKS: [], DISPUTED: []}
    for part in max((tables.parts(table, "patient_key") for table in _WATCHED), key=len):
        begin(tables)
        for table, (name, columns) in _WATCHED.items():
            tables.db.execute(f"INSERT INTO {name} SELECT {columns} FROM {tables.scan(table)} WHERE {part}")
        finish(tables)


def finish(tables: Tables) -> None:
    """The rows of every touched report, and of every touched study: whether it is disputed, and its modalities."""
    if not tables.count("SELECT (SELECT count(*) FROM touched_study) + (SELECT count(*) FROM touched_report)"):
        return
    found = tables.make(
        "reports",
        f"""
        SELECT _hash, _key, diagnostic_report_id, report_key, {_COPIED}, {_READ} FROM {tables.scan(OWN_REPORT_STUDY)}
        WHERE _hash IN (SELECT _hash FROM touched_report)
        OR study_key IN (SELECT study_key FROM touched_study)
        OR imaging_study_id IN (SELECT imaging_study_id FROM touched_study)
        OR (patient_key IN (SELECT patient_key FROM touched_study) AND accession_number IS NOT NULL)""",
    )
    for number, part in enumerate(parts(found, "patient_key")):
        tables.show("some_reports", f"SELECT * FROM reports WHERE {part}")
        _resolve(tables, first=number == 0)
    keys = "SELECT _hash, _key FROM reports UNION SELECT _hash, _key FROM touched_report"
    tables.make(
        "touched_key",
        f"SELECT study_key FROM touched_study UNION SELECT study_key FROM resolved UNION "
        f"SELECT study_key FROM {tables.scan(_LINKS, ['study_key', '_hash'])} SEMI JOIN ({keys}) USING (_hash)",
    )
    tables.replace(_LINKS, keys, "SELECT * FROM resolved")
    held = tables.scan("imaging_study", ["study_key", "patient_key", "_hash"])
    tables.make("touched_row", f"SELECT * FROM {held} SEMI JOIN touched_key USING (study_key)")
    _dispute(tables)
    study_modalities.decide(tables)


def _resolve(tables: Tables, *, first: bool) -> None:
    """Adds the rows of `some_reports` to `resolved`, or makes it."""
    studies = tables.scan("imaging_study")
    tables.make(
        "candidates",
        f"""
        SELECT {_READ} FROM {studies} SEMI JOIN some_reports USING (study_key)
        UNION SELECT {_READ} FROM {studies} SEMI JOIN some_reports USING (imaging_study_id)
        UNION SELECT {_READ} FROM {studies} SEMI JOIN (
            SELECT patient_key FROM some_reports WHERE accession_number IS NOT NULL) USING (patient_key)""",
    )
    if first:
        tables.make("resolved", _RESOLVED)
    else:
        tables.db.execute(f"INSERT INTO resolved {_RESOLVED}")


def _dispute(tables: Tables) -> None:
    """Which of the studies in `touched_key` are disputed now. `touched_row`: their rows."""
    links = tables.scan(_LINKS, ["study_key", "subject_key"])
    tables.make(
        "disputed",
        f"""
        SELECT study_key FROM (
            SELECT study_key, patient_key FROM touched_row
            UNION ALL
            SELECT * FROM {links} SEMI JOIN touched_key USING (study_key))
        GROUP BY study_key HAVING count(DISTINCT patient_key) > 1 OR count(patient_key) < count(*)""",
    )
    rows = "SELECT study_instance_uid, study_key FROM {} SEMI JOIN disputed USING (study_key)"
    named = " UNION ALL ".join(
        rows.format(tables.scan(t, ["study_instance_uid", "study_key"])) for t in ("imaging_study", _LINKS)
    )
    tables.replace(
        DISPUTED,
        "SELECT study_key AS _hash, '' AS _key FROM touched_key",
        "SELECT min(study_instance_uid) AS study_instance_uid, study_key, study_key AS _hash, "
        f"min(study_instance_uid) AS _key FROM ({named}) GROUP BY study_key",
    )


_RESOLVED = f"""
WITH accessions AS (
    SELECT patient_key, accession_number, min(study_instance_uid) AS study_instance_uid,
           min(study_key) AS study_key, min(imaging_study_id) AS imaging_study_id,
           min(accession_system) AS accession_system
    FROM candidates WHERE accession_number IS NOT NULL
    GROUP BY patient_key, accession_number HAVING count(DISTINCT study_key) = 1
), uids AS (
    SELECT study_key, min(imaging_study_id) AS imaging_study_id FROM candidates GROUP BY study_key
), ids AS (
    SELECT imaging_study_id, min(study_instance_uid) AS study_instance_uid, min(study_key) AS study_key
    FROM candidates GROUP BY imaging_study_id
), named AS (
    SELECT r._hash, r._key, r.diagnostic_report_id, r.report_key, {_COPIED}, r.patient_key AS subject_key,
           r.accession_number,
           CASE WHEN u.study_key IS NOT NULL THEN r.study_instance_uid
                ELSE coalesce(i.study_instance_uid, a.study_instance_uid, r.study_instance_uid) END
               AS study_instance_uid,
           CASE WHEN u.study_key IS NOT NULL THEN u.study_key
                ELSE coalesce(i.study_key, a.study_key, r.study_key) END AS study_key,
           coalesce(u.imaging_study_id, i.imaging_study_id, a.imaging_study_id, r.imaging_study_id) AS imaging_study_id
    FROM some_reports r
    LEFT JOIN uids u ON u.study_key = r.study_key
    LEFT JOIN ids i ON i.imaging_study_id = r.imaging_study_id
    LEFT JOIN accessions a ON a.accession_number = r.accession_number AND a.patient_key = r.patient_key
        AND coalesce(a.accession_system, '') = coalesce(r.accession_system, a.accession_system, '')
    WHERE r.study_instance_uid IS NOT NULL OR r.imaging_study_id IS NOT NULL OR r.accession_number IS NOT NULL
)
SELECT * EXCLUDE (n) FROM (
    SELECT *, row_number() OVER (PARTITION BY _key, study_instance_uid ORDER BY accession_number) AS n FROM named
) WHERE n = 1
"""
