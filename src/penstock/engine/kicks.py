"""Kicks: streams that are closed at once, in every process, because of whose they are.

A kick is a record in a channel of Penstock's own, so it reaches every process that follows the log, in the
order of the log, and is there when a process was away. Each process decides for its own streams. A
predicate cannot be sent; its name can: every process that runs the same code knows it by that.

All but ``Predicates`` happens on the engine's loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from penstock.core.channel import OWN, Subscription
from penstock.core.event import MAX_EVENT_BYTES, Event, to_text
from penstock.core.position import Gap, Position
from penstock.core.record import Record
from penstock.core.rights import StreamInfo, check_user
from penstock.core.stream import Stream
from penstock.core.wire import Block, Entry
from penstock.engine.feed import Next
from penstock.engine.pull import Pull
from penstock.engine.ring import Ring
from penstock.engine.streams import Judge, Streams
from penstock.errors import ConfigError
from penstock.log.base import Log
from penstock.threads import Pool

CHANNEL = OWN + "kicks"
# A stream that was allowed just before a kick, and is opened just after it, is closed too. Those that were
# closed are told to come back later than that.
REMEMBERED_S = 0.8

logger = logging.getLogger("penstock.kicks")

Predicate = Callable[..., object]
F = TypeVar("F", bound=Predicate)


class Predicates:
    """The predicates of a program, by their names."""

    def __init__(self) -> None:
        self._by_name: dict[str, Predicate] = {}

    def add(self, function: F) -> F:
        """Make a function known by its name.

        Raises:
            ConfigError: if it has no name of its own, or another is known by it.
        """
        name = _name_of(function)
        known = self._by_name.setdefault(name, function)
        if getattr(known, "__code__", known) != getattr(function, "__code__", function):
            raise ConfigError(f"there is a predicate {name!r} already: give this one another name")
        self._by_name[name] = function
        return function

    def get(self, name: str) -> Predicate | None:
        """The function of that name."""
        return self._by_name.get(name)

    def kick(self, who: str | int | Predicate, arguments: Sequence[Any]) -> Event:
        """What is to be published.

        Args:
            who: a user, or a predicate that is known.
            arguments: what the predicate is called with, after the stream's ``StreamInfo``.

        Raises:
            ConfigError: for anything else.
            BadData: if the arguments are not to be had as JSON.
        """
        if not callable(who):
            if arguments:
                raise ConfigError("arguments are for a predicate: a user is kicked as a whole")
            return Event(CHANNEL, {"user": check_user(who)})
        name = getattr(who, "__qualname__", "")
        if self._by_name.get(name) is not who:
            raise ConfigError(
                f"the predicate {name or who!r} is not known: it runs in every process, so define it where "
                "each imports it, and decorate it with '.predicate'; nobody was kicked"
            )
        event = Event(CHANNEL, to_text({"predicate": name, "arguments": list(arguments)}))
        event.check_size(MAX_EVENT_BYTES)
        return event


def _name_of(function: Predicate) -> str:
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str) or "<" in name:
        raise ConfigError(
            "a predicate is a function at the top of a module, known by its name in every process, not "
            f"{name or function!r}"
        )
    return name


class _Kick(NamedTuple):
    at: float
    judge: Judge


class Kicks:
    """Follows the kicks of a log, and closes the streams that they are for.

    Args:
        log: the log.
        ring: its newest records.
        streams: those of this process.
        predicates: those that this process knows.
        readers: threads that read in the log.
    """

    def __init__(self, log: Log, ring: Ring, streams: Streams, predicates: Predicates, readers: Pool) -> None:
        self._log = log
        self._ring = ring
        self._streams = streams
        self._predicates = predicates
        self._readers = readers
        self._recent: deque[_Kick] = deque()
        self._pull: Pull | None = None
        self._reading = False

    @property
    def following(self) -> bool:
        """Whether there is an audience that is not one of clients."""
        return self._pull is not None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow the kicks from now on; does nothing the second time."""
        bounds = self._ring.bounds
        if self._pull is not None or bounds is None:
            return
        subscription = Subscription([CHANNEL])
        stream = Stream(subscription, Position(bounds.epoch, self._ring.head))
        self._loop = loop
        self._pull = Pull(self._log, self._ring, stream, self._step)
        self._pull.client = False
        self._streams.listen(self._pull)

    def heed(self, info: StreamInfo) -> bool:
        """Whether a stream that is opened now was kicked a moment ago."""
        while self._recent and time.monotonic() - self._recent[0].at > REMEMBERED_S:
            self._recent.popleft()
        return any(kick.judge(info) for kick in self._recent)

    def _step(self) -> None:
        """Look what came; called on the loop."""
        pull = self._pull
        if pull is None or self._reading:
            return
        while True:
            step = pull.poll()
            if step is Next.READ:
                self._reading = True
                self._readers.submit_for(self._loop, pull.read).add_done_callback(self._on_read)
                return
            if not isinstance(step, Block):
                return
            self._take(step)

    def _on_read(self, reading: asyncio.Future[Block | None]) -> None:
        self._reading = False
        if reading.cancelled():
            return
        error = reading.exception()
        if error is not None:
            logger.error("kicks cannot be read; streams may be open that should not be", exc_info=error)
            return
        block = reading.result()
        if block is not None:
            self._take(block)
        self._step()

    def _take(self, block: Block) -> None:
        for item in block.items:
            if isinstance(item, Entry):
                self._execute(self._judge(item.record))
            elif isinstance(item, Gap):
                logger.warning(
                    "kicks may be among the events that are gone (%s): all streams of users are closed, to "
                    "be allowed anew", item.reason.meaning,
                )  # fmt: skip
                self._execute(_of_any_user)

    def _execute(self, judge: Judge) -> None:
        self._recent.append(_Kick(time.monotonic(), judge))
        self._streams.kick(judge)

    def _judge(self, record: Record) -> Judge:
        try:
            kick = json.loads(record.data)
            if "user" in kick:
                user = kick["user"]
                return lambda info: info.user == user
            name, arguments = kick["predicate"], kick["arguments"]
        except (ValueError, TypeError, KeyError):
            logger.error("a kick at %s cannot be read: %.200r", record.position, record.data)
            return _nobody
        predicate = self._predicates.get(name)
        if predicate is None:
            logger.error(
                "a kick by the predicate %r came, which this process does not know: it runs other code than "
                "the one that kicked; none of its streams is closed", name,
            )  # fmt: skip
            return _nobody

        def judge(info: StreamInfo) -> bool:
            try:
                return bool(predicate(info, *arguments))
            except Exception:
                logger.exception("the predicate %r failed for %r, whose stream is closed", name, info)
                return True

        return judge


def _of_any_user(info: StreamInfo) -> bool:
    return info.user is not None


def _nobody(info: StreamInfo) -> bool:
    return False
