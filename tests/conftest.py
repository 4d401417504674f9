"""What every test has: hypothesis without chance, no progress bars, and real data that cannot be skipped unnoticed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

REAL_DATA = "EVENTLAB_REAL_DATA"

os.environ["EVENTLAB_PROGRESS"] = "off"

# The same examples on every run and every machine: a failure is the commit's, not the day's. Campaigns choose their own.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", parent=settings.get_profile("ci"), derandomize=False, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

#: What became of the real-data tests; they may run in other processes, and their reports come here.
_outcomes: Counter[str] = Counter()
_PROPERTY = "real_data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real event logs; the test is skipped where there is none."""
    named = os.environ.get(REAL_DATA)
    if not named:
        pytest.skip(f"{REAL_DATA} is not set: it names the folder of real event logs, which are not part of the repository")
    folder = Path(named).resolve()
    if not folder.is_dir():
        pytest.skip(f"{REAL_DATA} names {folder}, which is not a folder")
    return folder


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Only tests are collected: a module that they import would be imported a second time, by another name, with its events."""
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith(("test_", "conftest"))
    return True if is_helper else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real_data")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker("real_data") is None or hasattr(report, "wasxfail"):
        return report
    if report.skipped:
        report.user_properties.append((_PROPERTY, "skipped"))
        if os.environ.get(REAL_DATA):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"{REAL_DATA} is set, so a real-data test may not be skipped.\n{reason}"
    elif report.when == "call":
        report.user_properties.append((_PROPERTY, "ran"))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _outcomes.update(what for name, what in report.user_properties if name == _PROPERTY)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"real-data tests: {_outcomes['ran']} ran, {_outcomes['skipped']} skipped")
