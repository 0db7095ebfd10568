"""Stores events, and finds out what became of those whose answer was lost."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Sequence
from functools import partial

from redis.exceptions import RedisError

from penstock import threads
from penstock.core.event import Event
from penstock.errors import AppendUnsure, LogUnavailable, PenstockError
from penstock.log.base import Appended
from penstock.log.redis.blocks import encode, seqs_of
from penstock.log.redis.client import Client
from penstock.log.redis.errors import is_answer
from penstock.log.redis.line import Line
from penstock.log.redis.scripts import State

FORBIDDEN_S = 24 * 3600  # an append that has not arrived by then never will
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5  # between tries to find out


class _Batch:
    """Events on their way.

    Args:
        name: one that nobody else gives.
        events: the events.
        before: the log as it was known before they were sent.
    """

    __slots__ = ("before", "count", "name", "pieces")

    def __init__(self, name: str, events: Sequence[Event], before: State) -> None:
        self.name = name
        self.pieces = encode(events)
        self.before = before
        self.count = sum([piece.events for piece in self.pieces])

    def appended(self, state: State, told: list[str]) -> Appended:
        """What a script's answer means: the first new seq, the time, and the seqs of keys."""
        first, at, *of_keys = told
        seqs = seqs_of(self.pieces, int(first), map(int, of_keys))
        return Appended(state.epoch, int(first), seqs, float(at))


class _AnswerLost(Exception):
    """It was sent, and nobody knows whether it was obeyed."""


class Writer:
    """Stores events. Any thread may use it.

    Args:
        client: the way to the log.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self.own = f"{self._name}.".encode()  # what the marks of its blocks begin with

    def append(self, events: Sequence[Event]) -> Appended:
        """Store events; see ``Log.append``."""
        batch = _Batch(f"{self._name}.{next(self._numbers)}", events, self._client.known)
        try:
            return self._client.do(f"store {batch.count} event(s)", partial(self._send, batch))
        except _AnswerLost as lost:
            cause = lost.__cause__
        return self._settle(batch, cause)

    def _send(self, batch: _Batch, line: Line) -> Appended:
        batch.before = self._client.known
        pieces = [part for piece in batch.pieces for part in piece]
        confirm = int(self._client.target.replicas > 0)
        try:
            state, told = self._client.run(
                line, "append", batch.name, confirm, *pieces, keys=[self._forbidding(batch)]
            )
        except RedisError as error:
            if line.unanswered and not is_answer(error):
                raise _AnswerLost from error
            raise
        self._wait_for_replicas(line)
        return batch.appended(state, told)

    def _settle(self, batch: _Batch, cause: BaseException | None) -> Appended:
        """Ask whether a batch was stored. If not it is forbidden: it may be on its way still.

        Raises:
            LogUnavailable: it was not, and will not be.
            AppendUnsure: the server could not be asked in time.
        """
        url, timeout_s = self._client.target.url, self._client.target.timeout_s
        deadline, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
        self._client.lines.give_up()
        while True:
            try:
                appended = self._client.do("find out what was stored", partial(self._look_for, batch))
                break
            except AppendUnsure:
                raise
            except PenstockError as error:
                if time.monotonic() > deadline or self._client.lines.closed:
                    raise AppendUnsure(
                        f"the connection to {url} broke while {batch.count} event(s) were being stored "
                        f"({cause}), and the server could not be asked within {timeout_s:g} s whether they "
                        f"were ({error})"
                    ) from cause
            threads.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        if appended is None:
            raise LogUnavailable(
                f"could not store {batch.count} event(s) in {url}: the connection broke ({cause}); the "
                "server was asked since: nothing was stored"
            ) from cause
        return appended

    def _look_for(self, batch: _Batch, line: Line) -> Appended | None:
        before = batch.before
        keys = [piece.key for piece in batch.pieces if piece.key]
        state, (found, *told) = self._client.run(
            line,
            "settle",
            batch.name, before.epoch, before.head, before.trimmed, FORBIDDEN_S, *keys,
            keys=[self._forbidding(batch)],
        )  # fmt: skip
        if found == "absent":
            return None
        if found == "unknown":
            raise AppendUnsure(
                f"the connection to {self._client.target.url} broke while {batch.count} event(s) were being "
                "stored, and what was stored then has been trimmed since"
            )
        self._wait_for_replicas(line)
        return batch.appended(state, told)

    def _wait_for_replicas(self, line: Line) -> None:
        """Until so many have what was written over this line."""
        wanted, url = self._client.target.replicas, self._client.target.url
        if not wanted:
            return
        # Told before the line would be given up as dead.
        within_s = self._client.target.timeout_s / 2
        try:
            (got,) = line.ask(("WAIT", wanted, int(within_s * 1000)))
        except RedisError as error:
            raise AppendUnsure(
                f"the server of {url} has stored it, and then the connection broke ({error}): whether "
                f"{wanted} replica(s) have it is unknown"
            ) from error
        if got < wanted:
            raise AppendUnsure(
                f"the server of {url} has stored it, but {got} and not {wanted} replica(s) had it within "
                f"{within_s:g} s: it may be lost if the server is"
            )

    def _forbidding(self, batch: _Batch) -> bytes:
        """The key that forbids a batch if it is there."""
        return self._client.target.key(f"forbidden:{batch.name}")
