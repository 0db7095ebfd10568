"""The log in a PostgreSQL database, which may join the application's transactions."""

from penstock.log.postgres.log import PostgresLog
from penstock.log.postgres.url import from_url

__all__ = ["PostgresLog", "from_url"]
