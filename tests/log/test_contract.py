"""The contract of a log, proved for the logs that we ship."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from penstock.log.memory import MemoryLog, MemoryStore
from penstock.log.sqlite import SQLiteLog
from penstock.testing import LOG_CHECKS, Fresh, Opener, check_log
from tests.support.processes import ROOT, environment


def memory(folder: Path) -> Fresh:
    return lambda: partial(MemoryLog, MemoryStore())


def sqlite(folder: Path) -> Fresh:
    return _files(folder, SQLiteLog)


def sqlite_full(folder: Path) -> Fresh:
    return _files(folder, partial(SQLiteLog, sync="full"))


def _files(folder: Path, log: Callable[[Path], SQLiteLog]) -> Fresh:
    numbers = itertools.count()

    def fresh() -> Opener:
        return partial(log, folder / f"{next(numbers)}.db")

    return fresh


@pytest.mark.parametrize("name", LOG_CHECKS)
@pytest.mark.parametrize("storage", [memory, sqlite, sqlite_full])
def test_contract(storage: Callable[[Path], Fresh], name: str, tmp_path: Path) -> None:
    LOG_CHECKS[name](storage(tmp_path))


def test_check_log_makes_all_checks() -> None:
    made: list[Opener] = []

    def fresh() -> Opener:
        made.append(memory(Path())())
        return made[-1]

    check_log(fresh)
    assert len(made) >= len(LOG_CHECKS)


def python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    ).stdout


def test_the_checks_need_no_test_runner() -> None:
    assert python("-c", "import sys, penstock.testing; print({'pytest', 'hypothesis'} & {*sys.modules})") == (
        "set()\n"
    )


def test_the_checks_hold_without_assert_statements() -> None:
    refused = """
from tests.log.test_contract_can_fail import IgnoresKeys, storage_of
from penstock.testing import check_log
try:
    check_log(storage_of(IgnoresKeys))
except AssertionError as error:
    print(*error.__notes__)
"""
    assert "a_key_is_stored_once" in python("-O", "-W", "ignore", "-c", refused)
