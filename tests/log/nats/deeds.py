"""What ``Child`` processes do with a log in NATS. Each tells what it did as lines of JSON.

python -m tests.log.nats.deeds DEED ARGUMENTS
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import socket
import sys
import warnings

from penstock import Penstock
from penstock.bus import _abandoned
from penstock.core.event import Event
from penstock.log.nats import NatsLog
from tests.log.deeds import end_as_a_worker_does, tell, wait_to_be_told
from tests.support.nats import open_nats


def append(url: str, name: str, times: int) -> None:
    """Append batches, tell the seqs of each; all of a batch has the same data."""
    dice = random.Random(name)
    log = open_nats(url)
    log.open()
    tell("open")
    wait_to_be_told()
    for turn in range(times):
        data = f"{name} {turn}"
        tell([data, *log.append([Event("check", data)] * dice.randint(1, 4)).seqs])
    log.close()


def append_keys(url: str, name: str, keys: int) -> None:
    """Append each key once, in an order of its own, some alone and some together; tell their seqs."""
    dice = random.Random(name)
    log = open_nats(url)
    log.open()
    tell("open")
    wait_to_be_told()
    left = list(range(keys))
    dice.shuffle(left)
    while left:
        batch, left = left[: (size := dice.choice([1, 1, 3, 10]))], left[size:]
        events = [Event(f"check/{key % 3}", name, key=f"key {key}") for key in batch]
        tell([[key, seq] for key, seq in zip(batch, log.append(events).seqs, strict=True)])
    log.close()


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
    log = bus.engine.log
    assert isinstance(log, NatsLog)
    pid = os.fork()
    if pid == 0:
        end_as_a_worker_does(lambda: _in_the_child(bus, log))
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
    assert next(records).data == "child"
    bus.publish("check", "parent 2")
    assert next(records).data == "parent 2"
    assert log._connection.number == 1, "it did not have to be made anew"
    bus.close()
    tell("over")


def _in_the_child(bus: Penstock, log: NatsLog) -> None:
    transport = log._connection._transport
    assert transport is not None
    with contextlib.suppress(OSError):  # as a destructor may, of TLS for one
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    bus.publish("check", "child")
    records = bus.subscribe("check", after="earliest")
    assert [next(records).data for _ in range(2)] == ["parent 1", "child"]
    bus.close()
    _abandoned.clear()  # as if nothing held what is the parent's: destructors do what they can
    gc.collect()


def main() -> None:
    deed, *arguments = sys.argv[1:]
    # That a fork while threads run is a danger is what is tested.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    globals()[deed](*(int(text) if text.isdigit() else text for text in arguments))


if __name__ == "__main__":
    main()
