"""What processes of their own do with a log. Each tells what it did as lines of JSON.

python -m tests.log.redis.deeds DEED ARGUMENTS
"""

from __future__ import annotations

import json
import os
import sys
import warnings

from penstock import Penstock
from penstock.core.event import Event
from penstock.log import open_log


def tell(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def subscribe(url: str) -> None:
    """Tell what is published to ``check``, up to the end of the channel."""
    with Penstock(url) as bus:
        records = bus.subscribe("check", after="earliest")
        tell("subscribed")
        for record in records:
            tell([record.seq, record.data])


def fork(url: str) -> None:
    """A child has a log of its own, and that of its parent is as it was when the child has gone."""
    # That a fork while threads run is a danger is what is tested.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    log, bus = open_log(url), Penstock(url)
    log.append([Event("check", "parent 1")])
    log.wait(0)
    records = bus.subscribe("check", after="earliest")
    assert next(records).data == "parent 1"
    pid = os.fork()
    if pid == 0:
        del log
        bus.publish("check", "child")
        own = bus.subscribe("check", after="earliest")
        assert [next(own).data for _ in range(2)] == ["parent 1", "child"]
        bus.close()
        sys.exit(0)  # with all that an interpreter does at its end
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
    assert [record.data for record in log.read(1, 10)] == ["child"]
    log.append([Event("check", "parent 2")])
    assert [next(records).data for _ in range(2)] == ["child", "parent 2"]
    bus.close()
    log.close()
    tell("done")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
