"""Who waits is woken by what others did, and by nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable

from penstock import Event
from penstock.log.base import WAIT_S
from penstock.log.postgres import PostgresLog
from tests.support.postgres import need_postgres
from tests.support.wait import wait_for

pytestmark = need_postgres

Logs = Callable[..., PostgresLog]


def wakes(waiting: PostgresLog, publisher: PostgresLog) -> bool:
    """Whether an append of one ends the wait of the other."""
    head = publisher.bounds().head
    ended = threading.Event()

    def wait() -> None:
        waiting.wait(head)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    ended.wait(WAIT_S / 5)  # it waits by now
    publisher.append([Event("check", "1")])
    woken = ended.wait(WAIT_S / 5)
    thread.join()
    return woken


def test_what_was_appended_here_does_not_wake_who_waits_here(logs: Logs) -> None:
    log, other = logs(), logs()
    log.append([Event("check", "1")])
    log.wait(1)  # it listens from now on
    wait_for(lambda: not wakes(log, log), what="own appends wake nobody")
    wait_for(lambda: wakes(log, other), what="those of others do")
    wait_for(lambda: not wakes(log, log), what="own appends wake nobody after those of others")
