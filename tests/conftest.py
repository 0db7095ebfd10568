"""What holds for the whole run: options for longer ones, isolation, and an account of what was not run."""

from __future__ import annotations

import signal
import threading
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.wait import wait_for

LONGER = {  # options, each of a mark: what it adds
    "thorough": "run all that .ci/run does: the oldest releases, and all else a few minutes more",
    "soak": "also run the soak tests, which take ten minutes each",
}
MANY = 10  # skipped tests, of which no more than their functions are named


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, added in LONGER.items():
        parser.addoption(f"--{name}", action="store_true", help=added)


def pytest_configure(config: pytest.Config) -> None:
    """Property tests try the same examples in each run: rare ones are for ``--soak`` to find."""
    settings.register_profile(
        "penstock",
        deadline=None,
        derandomize=not config.getoption("--soak"),
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("penstock")


@pytest.fixture(autouse=True)
def _no_thread_is_left_over() -> Iterator[None]:
    """The next test looks at threads and open files; those of this one may still be about to end."""
    yield
    wait_for(
        lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("penstock")],
        what=lambda: f"Penstock's threads end: {threading.enumerate()}",
    )


@pytest.fixture
def foreground() -> Iterator[None]:
    """Ctrl-C reaches the tests and their commands, also when a shell runs them in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Files with slow tests first: in the end nobody should wait for one that began late.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for name in LONGER:
        if not config.getoption(f"--{name}"):
            skip = pytest.mark.skip(reason=f"{name} tests take long; the cure: --{name}")
            for item in items:
                if item.get_closest_marker(name):
                    item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each test that was skipped, under its reason: green must not hide what was not run."""
    skipped: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.getreports("skipped"):
        if isinstance(report.longrepr, tuple):
            skipped[report.longrepr[2].removeprefix("Skipped: ")].append(report.nodeid)
    if skipped:
        terminalreporter.section("not run here")
    for reason, names in sorted(skipped.items()):
        terminalreporter.line(f"{len(names)} skipped: {reason}", yellow=True)
        shown = names if len(names) <= MANY else {name.partition("[")[0] for name in names}
        for name in sorted(shown):
            terminalreporter.line(f"    {name}")
