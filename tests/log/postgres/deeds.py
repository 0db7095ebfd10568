"""What ``Child`` processes do with a log in PostgreSQL. Each tells what it did as lines of JSON.

python -m tests.log.postgres.deeds DEED ARGUMENTS
"""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import urllib.parse
import warnings

import psycopg

from penstock import Penstock
from penstock.core.event import Event
from penstock.errors import AppendUnsure, LogUnavailable
from penstock.log import open_log
from penstock.log.base import Transactional
from tests.log.deeds import end_as_a_worker_does, tell, wait_to_be_told


def append(url: str, name: str, times: int) -> None:
    """Append batches, tell the seqs of each, or what else became of it; all of a batch has the same data."""
    dice = random.Random(name)
    log = open_log(url)
    for turn in range(times):
        data = f"{name} {turn}"
        try:
            appended = log.append([Event(name, data)] * dice.randint(1, 4))
            tell([data, appended.epoch, *appended.seqs])
        except (LogUnavailable, AppendUnsure) as error:
            tell([data, type(error).__name__])
    log.close()


def publish_in_transactions(url: str, name: str, times: int) -> None:
    """Commit transactions with an event each, without anybody who would move them; tell their data."""
    log = open_log(url)
    assert isinstance(log, Transactional)
    parts = urllib.parse.urlsplit(url)
    with psycopg.connect(parts._replace(query="").geturl()) as connection:
        for turn in range(times):
            log.store_in(connection, [Event("check", f"{name} {turn}")])
            connection.commit()
            tell(f"{name} {turn}")


def publish(url: str, times: int) -> None:
    """Publish a number, as often as told to; tell the seqs."""
    with Penstock(url, publish_timeout=60) as bus:
        for number in range(times):
            wait_to_be_told()
            tell(bus.publish("check", str(number)).seq)


def fork(url: str) -> None:
    """A bus that publishes and follows, in the parent and in the child."""
    bus = Penstock(url)
    records = bus.subscribe("check", after="earliest")
    bus.publish("check", "parent 1")
    assert next(records).data == "parent 1"
    pid = os.fork()
    if pid == 0:
        end_as_a_worker_does(lambda: _in_the_child(bus))
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
    assert next(records).data == "child"
    bus.publish("check", "parent 2")
    assert next(records).data == "parent 2"
    bus.close()
    tell("over")


def _in_the_child(bus: Penstock) -> None:
    bus.publish("check", "child")
    records = bus.subscribe("check", after="earliest")
    assert [next(records).data for _ in range(2)] == ["parent 1", "child"]
    bus.close()
    gc.collect()


def move(url: str) -> None:
    """Move what waits in the outbox, when told to."""
    log = open_log(url)
    log.bounds()
    tell("ready")
    wait_to_be_told()
    log.append([])
    tell("moved")


def main() -> None:
    deed, *arguments = sys.argv[1:]
    logging.getLogger("penstock").setLevel(logging.CRITICAL)  # what it tells is not on stderr
    # That a fork while threads run is a danger is what is tested.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    globals()[deed](*(int(text) if text.isdigit() else text for text in arguments))


if __name__ == "__main__":
    main()
