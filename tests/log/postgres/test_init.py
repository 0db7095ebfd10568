"""The command ``penstock init``, and logs that only it may make."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from penstock import Event
from penstock.errors import LogUnusable
from penstock.log.base import Retention
from penstock.log.postgres import PostgresLog
from tests.support.postgres import PostgreSQL, need_postgres
from tests.support.processes import environment

pytestmark = need_postgres


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock", *arguments]
    return subprocess.run(command, capture_output=True, env=environment(), text=True, timeout=60)


def output(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_what_it_made_and_leaves_it_the_second_time(url: str, prefix: str) -> None:
    first = output("init", url)
    found = re.fullmatch(rf"made the tables and functions public\.{prefix}_\*\nepoch (\w+)\n", first)
    assert found is not None, first
    assert output("init", url) == f"it was there: {url}\nepoch {found[1]}\n"


def test_it_makes_a_file_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    assert output("init", url).startswith("made sqlite:///")
    assert (tmp_path / "app.db").exists()
    assert output("init", url).startswith("it was there: sqlite:///")


def test_the_other_commands_reach_the_log_by_its_url(server: PostgreSQL, prefix: str) -> None:
    url = server.url(f"prefix={prefix}&password=not-needed-here-but-kept")
    assert run("stats", url).returncode == 3, "a log that is not there is not made by looking"
    assert "so one was begun" in run("publish", url, "chat", "hello").stderr
    position = output("publish", url, "chat", "again").strip()
    assert position.endswith(":2")
    assert [line.split("\t")[-1] for line in output("tail", url, "--no-follow").splitlines()] == [
        "hello",
        "again",
    ]
    assert output("trim", url, "--max-events", "1") == "removed 1, left 1\n"
    assert "not-needed-here" not in output("stats", url)
    assert re.fullmatch(r"old epoch \w+\nnew epoch \w+\n", output("renew", url))


def test_what_is_left_to_init_is_not_made_by_use(
    server: PostgreSQL, prefix: str, logs: Callable[..., PostgresLog]
) -> None:
    url = server.url(f"prefix={prefix}&create=init")
    log = logs(url)
    with pytest.raises(LogUnusable, match="penstock init"):
        log.open()
    assert not log.exists()
    output("init", url)
    log.append([Event("check", "1")])
    assert log.bounds().head == 1


def test_a_user_who_may_make_nothing_publishes_and_follows_with_a_few_rights(
    server: PostgreSQL, prefix: str, logs: Callable[..., PostgresLog]
) -> None:
    """Those that docs/postgres.md names."""
    output("init", server.url(f"prefix={prefix}"))
    page = (Path(__file__).parents[3] / "docs" / "postgres.md").read_text()
    [grants] = re.findall(r"```sql\n(GRANT .*?)```", page, re.DOTALL)
    with closing(psycopg.connect(server.url(), autocommit=True)) as connection:
        connection.execute(f"CREATE USER {prefix}_user")
        for grant in (
            grants.replace("penstock_", f"{prefix}_").replace("app_user", f"{prefix}_user").split(";")
        ):
            if grant.strip():
                connection.execute(grant.encode())
    url = server.url(f"prefix={prefix}&create=init", user=f"{prefix}_user")
    log = logs(url)
    log.append([Event("check", "1", key="1"), Event("check", "2")])
    assert [record.data for record in log.read(0, 10)] == ["1", "2"]
    log.wait(2)
    log.open(renew=log.bounds().epoch)
    with closing(psycopg.connect(server.url(user=f"{prefix}_user"))) as connection:
        log.store_in(connection, [Event("check", "3")])
        connection.commit()
    log.append([])
    assert log.bounds().head == 3
    assert log.trim(Retention(None, 1, None)) == 2
