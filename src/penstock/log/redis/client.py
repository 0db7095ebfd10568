"""Talks to a log, and keeps watch that it stays the same one.

A server may lose the newest of a log and go on: it restarted from an older file, or a replica took over
that had not got everything. Then a seq would come a second time, for another event. So the newest block
that was ever seen here is remembered, and compared: by every script in the same atomic step, by every
read, and thoroughly at the beginning of every connection. Where it is gone a new epoch begins.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from penstock.errors import LogCorrupt, LogUnavailable, NotALog, PenstockError, SchemaTooNew
from penstock.log.base import new_epoch
from penstock.log.redis.blocks import Entry, marks_of, seq_of
from penstock.log.redis.errors import Border, is_broken, is_elsewhere, is_passing
from penstock.log.redis.line import Line
from penstock.log.redis.lines import Lines
from penstock.log.redis.primary import connector
from penstock.log.redis.scripts import FIELDS, SCHEMA_VERSION, State, script
from penstock.log.redis.settings import warn_of_settings
from penstock.log.redis.target import Target

T = TypeVar("T")

logger = logging.getLogger("penstock.log")

_TRIES = 3  # a log that was found to be another is looked at anew, so often
_NOTHING = State("", 0, 0, "", 0, 0, 0)


class Client:
    """The way to one log. Any thread may use it.

    Args:
        target: which, and how to reach it.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.border = Border(target.url, target.timeout_s)
        self.lines = Lines(connector(target), target.url)
        self.log_key, self.events_key = target.key("log"), target.key("events")
        self.known = _NOTHING  # the newest that was seen
        self._next_epoch = new_epoch()
        self._warned = False

    def do(self, what: str, work: Callable[[Line], T], *, greet: bool = True) -> T:
        """Do something over a line, and once more where it was certainly not done.

        Args:
            what: what is done, for messages: "could not <what>".
            work: does it. It may be called again after an error of the driver.
            greet: whether to see to it first that the log is there.
        """
        tries, used = 0, False

        def with_line(line: Line) -> T:
            nonlocal used
            used = line.used
            if greet:
                self.greet(line)
            return work(line)

        while True:
            tries += 1
            try:
                return self.lines.use(with_line)
            except (RedisError, OSError) as error:
                if not is_passing(error):
                    self.lines.give_up()
                if not (tries == 1 and used and is_broken(error)) and not (
                    tries < _TRIES and is_elsewhere(error)
                ):
                    raise self.border.translate(error, what) from error

    def greet(self, line: Line) -> None:
        """See to it that the log is there, and is the same; at the beginning of a line."""
        if line.greeted:
            return
        self.look(line)
        line.greeted = True
        with contextlib.suppress(ResponseError):  # a user may be forbidden to
            line.ask(("CLIENT", "SETNAME", "penstock"))
        if not self._warned:
            self._warned = True
            warn_of_settings(line, self.target.url)

    def look(self, line: Line, renew: str = "") -> State:
        """Find the log; begin it where there is none, and a new epoch where it does not go on.

        Args:
            line: the line.
            renew: the epoch to be ended if it is the present one.
        """
        known, epoch = self.known, self._next_epoch
        arguments = (known.epoch, known.head, known.last, epoch, renew)
        fields, told = self._answer(line.run(script("look"), (self.log_key, self.events_key), arguments))
        state = State.of(fields)
        if state.epoch == epoch:
            self._next_epoch = new_epoch()
        if told[0]:
            self._tell(told[0], known)
        self.note(state)
        return state

    def run(
        self, line: Line, name: str, *arguments: Any, keys: Sequence[bytes] = ()
    ) -> tuple[State, list[str]]:
        """Run a script.

        Returns:
            The log as the script left it, and what else it answered.
        """
        for _ in range(_TRIES):
            known = self.known
            arguments_ = (known.epoch, known.head, known.last, *arguments)
            answer = line.run(script(name), (self.log_key, self.events_key, *keys), arguments_)
            if answer != b"look":
                fields, told = self._answer(answer)
                state = State.of(fields)
                self.note(state)
                return state, told
            self.look(line)
        raise self._restless()

    def blocks(self, line: Line, after: int, count: int) -> tuple[State, list[Entry]]:
        """The blocks that follow a seq, and the log, which is of the same epoch before and after.

        No transaction: one would be refused where the memory is full.

        Args:
            line: the line.
            after: the seq.
            count: at most so many blocks.
        """
        for _ in range(_TRIES):
            known = self.known
            (epoch, head), entries, fields = line.ask(
                ("HMGET", self.log_key, "epoch", "head"),
                ("XRANGE", self.events_key, f"({after}-0", "+", "COUNT", count),
                ("HMGET", self.log_key, *FIELDS),
            )
            state = self.state_of(fields)
            if state is not None and epoch == state.epoch.encode() and goes_on(known, state, after, entries):
                missing = not entries and int(head) > max(after, state.trimmed)
                if not missing:
                    self.note(state)
                    return state, entries
            self.look(line)
        raise self._restless()

    def state_of(self, fields: list[Any]) -> State | None:
        """The log from the values of ``FIELDS``; None if it is not there, or not as it should be."""
        if None in fields or fields[0] != b"1":
            return None
        return State.of([field.decode() for field in fields])

    def note(self, state: State) -> None:
        """Remember the newest; answers may overtake one another."""
        known = self.known
        if state.epoch != known.epoch or state.head >= known.head:
            self.known = state

    def close(self) -> None:
        """Let go of everything."""
        self.lines.close()

    def _answer(self, answer: bytes) -> tuple[list[str], list[str]]:
        """The values of ``FIELDS``, and what follows them."""
        words = answer.decode().split(" ")
        if len(words) <= len(FIELDS):
            raise self._refused(*words)
        return words[: len(FIELDS)], words[len(FIELDS) :]

    def _tell(self, what: str, known: State) -> None:
        """Say what had to be done to the log."""
        url = self.target.url
        if what == "regressed":
            logger.error(
                "%s lost its newest events: it had %d of them, the last of which is gone. Did a replica take "
                "over that lagged behind, or was older data read? A new epoch begins",
                url, known.head,
            )  # fmt: skip
        elif what == "lost":
            logger.error(
                "the server threw away the events of %s: does it evict (maxmemory-policy)? A new log begins",
                url,
            )
        elif known.epoch:
            logger.error("%s is gone: it was deleted, or its server lost its data. A new log begins", url)

    def _restless(self) -> LogUnavailable:
        return LogUnavailable(f"{self.target.url} becomes another log again and again; nothing was stored")

    def _refused(self, why: str, version: str = "") -> PenstockError:
        url, keys = self.target.url, f"{self.log_key.decode()!r} and {self.events_key.decode()!r}"
        if why == "damaged":
            return LogCorrupt(
                f"{url} is damaged: {keys} do not fit together; they were left as they are: restore a backup "
                "and run 'penstock renew', or delete both to begin a new log"
            )
        if why == "forbidden":
            return LogUnavailable(f"{url}: this append came too late; nothing was stored")
        if version.isdigit() and int(version) > SCHEMA_VERSION:
            return SchemaTooNew(
                f"{url} has schema version {version}, this Penstock knows up to {SCHEMA_VERSION}; "
                "upgrade Penstock: the log was left as it is"
            )
        return NotALog(
            f"{keys} in {url} are something else; they were left as they are: choose another prefix="
        )


def goes_on(known: State, state: State, after: int, entries: Sequence[Entry]) -> bool:
    """Whether a log still has the newest block that is known, as far as this shows.

    Args:
        known: the log as it was known before it was asked.
        state: the log.
        after: a seq.
        entries: the blocks that follow it, or the first of them.
    """
    if state.epoch != known.epoch or not known.head:
        return True
    if state.head <= known.head:
        return state.head == known.head and state.last == known.last
    if not entries or state.trimmed > known.head:
        return True
    if after == known.head:
        return marks_of(entries[0])[1] == known.last
    if seq_of(entries[0]) <= known.head <= seq_of(entries[-1]):
        same = b"%d-0" % known.head
        return any(entry[0] == same and marks_of(entry)[0] == known.last for entry in entries)
    return True
