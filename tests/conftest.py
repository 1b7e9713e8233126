"""Where every test must run (CI=true), a test that was skipped is a failure, but for material users do not have."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from tests.pynetdicom_repaired import repair
from tests.shared import NO_CORPUS, NO_SOF_TESTS

EXPECTED = (NO_CORPUS, NO_SOF_TESTS)
UNEXPECTED: list[str] = []

settings.register_profile("project", deadline=None)  # how long an example takes is no test's business
settings.load_profile("project")
repair()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2])
        if not any(expected in reason for expected in EXPECTED):
            UNEXPECTED.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if UNEXPECTED and os.environ.get("CI", "").lower() == "true":
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line("skipped, though every peer must be there:\n" + "\n".join(UNEXPECTED))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
