"""What the checks of a log share: logs on one storage, things to store, threads, and assertions.

The assertions hold under ``python -O`` too, and say what they are about.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from penstock.core.event import Event
from penstock.core.record import Record
from penstock.log.base import Appended, Log

Opener = Callable[[], Log]
Fresh = Callable[[], Opener]
Check = Callable[[Fresh], None]

DEADLINE_S = 60.0  # what has not happened by then on a busy machine does not happen
ALL = 10_000  # a limit above all that a check stores


@contextlib.contextmanager
def logs(opener: Opener, count: int = 1) -> Iterator[list[Log]]:
    """Opened logs on one storage."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(opener())
            stack.callback(made[-1].close)
            made[-1].open()
        yield made


def same(found: object, expected: object, what: str) -> None:
    """Assert that something is what it should be."""
    if found != expected:
        raise AssertionError(f"{what}: {_brief(found)}, expected {_brief(expected)}")


def holds(fact: object, what: str) -> None:
    """Assert a fact."""
    if not fact:
        raise AssertionError(f"broken: {what}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 1000 else f"{text[:600]} … {text[-300:]}"


def some(count: int, channel: str = "check") -> list[Event]:
    """Different events."""
    return [Event(channel, f"{channel} {number}") for number in range(1, count + 1)]


def everything(log: Log, after: int = 0) -> list[Record]:
    """All that follows a seq, in as many reads as it takes."""
    found: list[Record] = []
    while records := log.read(after, ALL):
        found += records
        after = records[-1].seq
    return found


def numbers(records: Sequence[Record]) -> list[int]:
    """Their seqs."""
    return [record.seq for record in records]


def expected_records(events: Sequence[Event], appended: Appended) -> list[Record]:
    """The records that events without keys must have become."""
    pairs = zip(events, appended.seqs, strict=True)
    return [Record.of(event, appended.epoch, seq, appended.time) for event, seq in pairs]


@contextlib.contextmanager
def threads(*works: Callable[[], object]) -> Iterator[None]:
    """Run them beside the block and wait for their end; their first error is raised here."""
    errors: list[BaseException] = []
    begin = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        try:
            begin.wait(DEADLINE_S)
            work()
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in running:
        thread.start()
    try:
        yield
    except BaseException as error:
        errors.append(error)  # theirs, if there is one, was before and is the cause
    deadline = time.monotonic() + DEADLINE_S
    for thread in running:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    holds(not any(thread.is_alive() for thread in running), "a thread comes to its end")


def join(*works: Callable[[], object]) -> None:
    """Run them all, to the end."""
    with threads(*works):
        pass


def until_there_are(found: Sequence[object], count: int, what: str) -> None:
    """Wait until so many were found."""
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < count:
        holds(time.monotonic() < deadline, f"{what} within {DEADLINE_S:g} s")
        time.sleep(0.001)
