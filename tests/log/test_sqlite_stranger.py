"""A file that took a log's place, while the log's write-ahead log stayed behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from penstock import Event
from penstock.errors import NotALog
from penstock.log.sqlite import SQLiteLog


def test_a_text_file_in_the_place_of_a_killed_log_is_refused_and_left(tmp_path: Path) -> None:
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"
    log = SQLiteLog(path)
    log.append([Event("chat", "stored")])
    for end in ("", "-wal", "-shm"):  # as they lie after a kill: nothing was written back
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    log.close()
    copy.write_text("a letter\n" * 1000)
    with pytest.raises(NotALog, match="no SQLite file"):
        SQLiteLog(copy).open()
    assert copy.read_text() == "a letter\n" * 1000
