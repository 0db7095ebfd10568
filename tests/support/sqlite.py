"""Another program that uses the SQLite file of a log: it locks it, damages it, moves it away."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

_OTHER = "shopping list: milk, bread\n"


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the write lock, so that every append waits or fails."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def execute(file: Path, statement: str) -> None:
    """Change the file behind its log's back."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)


@contextlib.contextmanager
def unreadable(file: Path) -> Iterator[None]:
    """Take the records out of the log's sight; nothing of them is changed."""
    execute(file, "ALTER TABLE record RENAME TO gone")
    try:
        yield
    finally:
        execute(file, "ALTER TABLE gone RENAME TO record")


@contextlib.contextmanager
def moved_away(file: Path) -> Iterator[None]:
    """Put a folder where the file was, so that it can be neither opened nor made anew."""
    names = [Path(f"{file}{end}") for end in ("", "-wal", "-shm")]
    aside = [path.rename(f"{path}.aside") for path in names if path.exists()]
    file.mkdir()
    try:
        yield
    finally:
        file.rmdir()
        for path in aside:
            path.rename(str(path).removesuffix(".aside"))


@contextlib.contextmanager
def something_else_in_its_place(folder: Path) -> Iterator[None]:
    """Another process moves the log away and writes a file of the same name; then it is put back.

    There is a file of that name all the while: a server that looks meanwhile must not make a new one.
    """
    log, aside = folder / "penstock.db", folder / "aside"
    aside.mkdir()
    other = aside / "other"
    other.write_text(_OTHER)
    os.link(log, aside / log.name)
    other.replace(log)
    moved = []
    for file in (Path(f"{log}-wal"), Path(f"{log}-shm")):
        with contextlib.suppress(FileNotFoundError):  # whoever closes the log last takes them away
            file.rename(aside / file.name)
            moved.append(file)
    try:
        yield
    finally:
        assert log.read_text() == _OTHER
        for file in moved:
            (aside / file.name).replace(file)
        (aside / log.name).replace(log)
        aside.rmdir()
