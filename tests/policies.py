"""Settings of tests that are about something else: everything may be seen."""

from __future__ import annotations

from cohort.privacy import Policy

EVERYTHING = Policy(small_cells=1, line_level=True, identifiers="identifiers")
EVERYTHING_TOML = '[cohort]\nsmall_cells = 1\nline_level = true\nidentifiers = "identifiers"\n'
