"""Waits for what others append, on a connection that blocks at the server.

What ends the wait is read by the same round trip, and kept for the read that follows.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from redis.exceptions import RedisError

from penstock import threads
from penstock.core.record import Record
from penstock.log.base import WAIT_S
from penstock.log.redis.blocks import Entry, decode, seq_of
from penstock.log.redis.client import Client, goes_on
from penstock.log.redis.errors import is_broken, is_elsewhere, is_passing
from penstock.log.redis.line import Line
from penstock.log.redis.scripts import FIELDS

_BLOCKS = 64  # that are fetched ahead; with events of the largest default size 16 MB
# While its own process appends, a follower is woken for nothing each time. It looks no more often than this.
_OWN_PAUSE_S = 0.002


class _Ahead(NamedTuple):
    """What was read while waiting."""

    after: int
    epoch: str
    trimmed: int
    entries: list[Entry]


class Follower:
    """Waits for records. Any thread may use it; each that waits has a connection for itself.

    Args:
        client: the way to the log.
        own: what the marks of blocks begin with that this log stored itself.
    """

    def __init__(self, client: Client, own: bytes) -> None:
        self._client = client
        self._own = own
        self._mutex = threads.Lock()
        self._waiting: set[Line] = set()
        self._local = threads.Local()  # what a thread fetched ahead is for itself

    def wait(self, after: int) -> None:
        """See ``Log.wait``."""
        lines, used = self._client.lines, False

        def wait_on(line: Line) -> None:
            nonlocal used
            used = line.used
            self._client.greet(line)
            self._wait_on(line, after)

        try:
            lines.use(wait_on)
        except (RedisError, OSError) as error:
            if lines.closed:
                return
            if not is_passing(error):
                lines.give_up()
            # If it was but this connection, or the log is elsewhere now, the read that follows finds it.
            if not (used and is_broken(error)) and not is_elsewhere(error):
                raise self._client.border.translate(error, "follow the log") from error

    def take_ahead(self, after: int) -> list[Record]:
        """What this thread's last wait found to follow a seq; once, and if it has asked for nothing since."""
        ahead: _Ahead | None = getattr(self._local, "ahead", None)
        if ahead is None:
            return []
        self._local.ahead = None
        if ahead.after != after:
            return []
        return decode(ahead.entries, ahead.epoch, max(after, ahead.trimmed))

    def forget_ahead(self) -> None:
        """What this thread fetched ahead may be the past by now."""
        self._local.ahead = None

    def close(self) -> None:
        """End all waits; the lines are closed already for those who come now."""
        with self._mutex:
            waiting = list(self._waiting)
        for line in waiting:
            line.hang_up()

    def _wait_on(self, line: Line, after: int) -> None:
        with self._mutex:
            self._waiting.add(line)
        try:
            self._wait_for_others(line, after)
        finally:
            with self._mutex:
                self._waiting.discard(line)

    def _wait_for_others(self, line: Line, after: int) -> None:
        client, deadline = self._client, time.monotonic() + WAIT_S
        upto = after
        while not client.lines.closed:
            left_ms = int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0:
                return
            known = client.known
            found, fields = line.ask(
                ("XREAD", "COUNT", _BLOCKS, "BLOCK", left_ms, "STREAMS", client.events_key, f"{upto}-0"),
                ("HMGET", client.log_key, *FIELDS),
            )
            entries: list[Entry] = found[0][1] if found else []
            state = client.state_of(fields)
            if state is None or state.epoch != known.epoch or not entries:
                return
            if not goes_on(known, state, upto, entries):
                return  # the read that follows sees to it
            client.note(state)
            if not all(fields[0].startswith(self._own) for _, fields in entries):
                if upto == after:
                    self._local.ahead = _Ahead(after, state.epoch, state.trimmed, entries)
                return
            upto = seq_of(entries[-1])
            threads.sleep(_OWN_PAUSE_S)
