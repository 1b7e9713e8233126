"""Settings of tests that are about something else: everything may be seen."""

from __future__ import annotations

from cohort.privacy import Policy
from cohort.sandbox import Limits

EVERYTHING = Policy(small_cells=1, line_level=True, identifiers="identifiers")
PATIENT = Limits(deadline_s=100)
"""For tests that are not about limits, on a machine that is busy."""

EVERYTHING_TOML = '[cohort]\nsmall_cells = 1\nline_level = true\nidentifiers = "identifiers"\n'
