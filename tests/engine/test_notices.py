"""An operator is told once, not a thousand times."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from penstock.engine import notices

logger = logging.getLogger("penstock.test")


def test_a_flood_of_the_same_warning_is_one_line_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_000.0]
    monkeypatch.setattr(notices, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(notices, "_last", {})
    for second in range(130):
        clock[0] = 1_000.0 + second
        notices.warn(logger, "the log is away: %d", second)
    assert [record.getMessage() for record in caplog.records] == [
        "the log is away: 0",
        "the log is away: 60",
        "the log is away: 120",
    ]


def test_different_matters_are_told_separately(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_last", {})
    for _ in range(3):
        notices.warn(logger, "%s is away", "one", about="one")
        notices.warn(logger, "%s is away", "other", about="other")
        notices.warn(logger, "%s is full", "one", about="one")
    assert [record.getMessage() for record in caplog.records] == [
        "one is away",
        "other is away",
        "one is full",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
