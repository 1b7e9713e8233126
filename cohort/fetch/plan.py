"""What is to be fetched: the instances of a cohort, as the lake lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.errors import InvalidQuery
from cohort.manifest import ADDRESSES
from cohort.selection import Selection

MOST_INSTANCES = 5_000_000

_SERIES = """
SELECT x.study_instance_uid, x.series_instance_uid,
       list(d.sop_instance_uid ORDER BY d.sop_instance_uid) FILTER (d.sop_instance_uid <> '') AS uids,
       list(d.sop_class_uid ORDER BY d.sop_instance_uid) FILTER (d.sop_instance_uid <> '') AS classes
FROM selected_series x LEFT JOIN dicom_instance d
     ON d.study_instance_uid = x.study_instance_uid AND d.series_instance_uid = x.series_instance_uid
GROUP BY ALL ORDER BY ALL
"""
_ADDRESSES = f"SELECT s.study_instance_uid, {ADDRESSES} AS addresses FROM selected_study s ORDER BY 1"


@dataclass(frozen=True)
class Series:
    """One series that is wanted: SOP Instance UID → SOP Class UID ("" where the lake does not know it), and the
    WADO-RS bases it can be asked for at."""

    study_instance_uid: str
    series_instance_uid: str
    instances: Mapping[str, str]
    addresses: tuple[str, ...]


def wanted(selection: Selection) -> Sequence[Series]:
    """Every series of a cohort. One without instances is one whose instances the lake does not list.

    Raises  InvalidQuery as Selection.rows does, and when there are more than MOST_INSTANCES instances
    """
    addresses = {row["study_instance_uid"]: tuple(row["addresses"] or ()) for row in selection.rows(_ADDRESSES)}
    found = [
        Series(
            row["study_instance_uid"],
            row["series_instance_uid"],
            dict(zip(row["uids"] or (), (c or "" for c in row["classes"] or ()), strict=True)),
            addresses.get(row["study_instance_uid"], ()),
        )
        for row in selection.rows(_SERIES)
    ]
    if sum(len(one.instances) for one in found) > MOST_INSTANCES:
        raise InvalidQuery(f"the cohort has more than {MOST_INSTANCES} instances: narrow the question")
    return found
