"""The default log: one SQLite file beside the app, for all processes of a machine."""

from penstock.log.sqlite.log import SQLiteLog
from penstock.log.sqlite.url import from_url

__all__ = ["SQLiteLog", "from_url"]
