"""Integer keys of persons, studies, series and reports: joins on them are several times faster than on ids. Pure.

A key is a digest of the id, so it is the same in every generation and every lake, and no writer has to ask another
one for it. Two ids with one key (about 1 in 20,000 lakes of ten million studies has such a pair) are noticed when the
second one comes, and its resource is parked: people are never mixed (docs/decisions/0004-integer-keys.md).
"""

from __future__ import annotations

import hashlib

KEYS = {
    "patient_id": "patient_key",
    "study_instance_uid": "study_key",
    "series_instance_uid": "series_key",
    "diagnostic_report_id": "report_key",
}
"""column of an id → column of its key; a table that has the one has the other."""


KEYS_END = 2**60
"""Keys are below this, and as many in one range as in any other of its size."""


def key(text: str) -> int:
    """The first 60 bits of the id's MD5.

    >>> key("1.2.3")
    796729946004966326
    """
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:15], 16)


def key_sql(expression: str) -> str:
    """DuckDB SQL for the key of a text; NULL of NULL."""
    return f"('0x' || left(md5({expression}), 15))::BIGINT"
