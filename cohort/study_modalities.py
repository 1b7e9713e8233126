"""Which modalities a study has: those of all its ImagingStudies, since several may be of one study. Where there are
several, each row says all of them; only what a change can touch is decided again."""

from __future__ import annotations

from cohort.kinds import MODALITIES_TEXT
from cohort.tables import Tables

_STUDIES = "imaging_study"


def own(rows: str) -> str:
    """A SELECT of rows of `imaging_study`, the modalities of their resource each once and sorted; none is an empty
    list and an empty text."""
    listed = f"SELECT * REPLACE (list_sort(list_distinct(coalesce(modalities, []))) AS modalities) FROM ({rows})"
    return f"SELECT *, {_text('modalities')} AS {MODALITIES_TEXT} FROM ({listed})"


def _text(listed: str) -> str:
    return f"CASE WHEN {listed} = [] THEN '' ELSE '\\' || array_to_string({listed}, '\\') || '\\' END"


def decide(tables: Tables) -> None:
    """The modalities of studies that have several ImagingStudies, or had: `touched_study` has the rows that were
    replaced, `touched_row` all rows of their studies now."""
    touched = "SELECT study_key, _hash FROM touched_study UNION ALL SELECT study_key, _hash FROM touched_row"
    several = f"SELECT study_key FROM ({touched}) GROUP BY study_key HAVING count(DISTINCT _hash) > 1"
    if not tables.make("several", several):
        return
    stated = tables.scan("imaging_study_modality", ["study_key", "modality"])
    tables.make(
        "decided",
        "SELECT study_key, coalesce(modalities, []) AS modalities FROM several LEFT JOIN ("
        f"SELECT study_key, list_sort(list(DISTINCT modality)) AS modalities FROM {stated} "
        "SEMI JOIN several USING (study_key) WHERE modality IS NOT NULL GROUP BY study_key) USING (study_key)",
    )
    tables.make(
        "restated",
        f"SELECT s.* REPLACE (d.modalities AS modalities, {_text('d.modalities')} AS {MODALITIES_TEXT}) "
        f"FROM {tables.scan(_STUDIES)} s JOIN decided d USING (study_key) "
        "WHERE s.modalities IS DISTINCT FROM d.modalities",
    )
    tables.replace(_STUDIES, "SELECT _hash, _key FROM restated", "SELECT * FROM restated")
