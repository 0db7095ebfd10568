"""What makes a SQLite file a log: its schema, whose version tells what may use it, and its modes."""

from __future__ import annotations

import sqlite3
import time
from importlib.resources import files
from pathlib import Path
from typing import Literal

from penstock import threads
from penstock.errors import LogUnusable, NotALog, SchemaTooNew
from penstock.log.base import new_epoch
from penstock.log.sqlite.errors import is_busy, transaction

SCHEMA_VERSION = 1
APPLICATION_ID = 0x50454E53  # "PENS", in the file's header: this file is ours

Sync = Literal["normal", "full"]


def prepare(connection: sqlite3.Connection, path: Path, sync: Sync, busy_timeout_s: float) -> None:
    """Make a log of an empty file, and set up the connection to write to it.

    Raises:
        LogUnusable: if the file holds something else; it was not touched.
    """
    connection.execute("BEGIN")  # one look at it all: another process may be making a log of it just now
    _version(connection, path)
    connection.execute("COMMIT")
    # Two processes that switch a new file at once may be told "locked" without having waited.
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = wal").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            threads.sleep(0.01)
    if mode != "wal":
        raise LogUnusable(
            f"{path} lies where SQLite cannot share memory (a network file system?); move it to a local disk"
        )
    connection.execute(f"PRAGMA synchronous = {sync}")
    if sync == "full":
        connection.execute("PRAGMA fullfsync = on")  # macOS: through the disk's own cache too
    with transaction(connection, path):
        if _version(connection, path) == 0:
            schema = files(__package__).joinpath("schema.sql").read_text("utf-8")
            for statement in schema.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO log VALUES (1, ?, 0)", (new_epoch(),))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema version, 0 if it is empty.

    Raises:
        NotALog: if the file holds something else.
        SchemaTooNew: if a newer Penstock wrote it.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise SchemaTooNew(
                f"{path} has schema version {version}, this Penstock knows up to "
                f"{SCHEMA_VERSION}; upgrade Penstock: the log was left as it is"
            )
        return version
    if tables or application or version:
        raise NotALog(f"{path} is a SQLite database of another program; it was left as it is")
    return 0
