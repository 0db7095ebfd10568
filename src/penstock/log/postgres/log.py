"""The log in a PostgreSQL database.

An append is one call of a function in the database: it takes the lock of the order, numbers the events after
the head, inserts them and notifies. So it is one round trip, and seqs are in the order of the commits. No
transaction of a user's holds that lock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg.pq.abc import PGresult

from penstock.core.channel import Subscription
from penstock.core.event import Event
from penstock.core.position import Bounds
from penstock.core.record import Record
from penstock.log.base import READ_BYTES, WAIT_S, Appended, Log, Retention, new_epoch
from penstock.log.postgres import outbox
from penstock.log.postgres.doorbell import Doorbell
from penstock.log.postgres.errors import NO_ROW
from penstock.log.postgres.mark import Mark
from penstock.log.postgres.options import Place
from penstock.log.postgres.records import event_values, new_batch, read_records, subscription_values
from penstock.log.postgres.server import Server
from penstock.log.postgres.session import Lost, Refusal, Session
from penstock.log.postgres.settle import settle
from penstock.log.postgres.sql import statements
from penstock.log.postgres.values import (
    bigint,
    boolean,
    double,
    integer,
    read_bigints,
    read_float8,
    read_int8,
    row_of,
    text,
)

logger = logging.getLogger("penstock.log")

TRIM_STEP = 2_000  # rows a transaction
LOOK_EVERY_S = 2.0  # how often one that waits looks whether something was left in the outbox
_LOCK_SHARE = 0.8  # of the time for an answer: who cannot have the lock is told so before it is over


class _State(NamedTuple):
    """What a log holds."""

    epoch: str
    trimmed: int
    head: int
    outbox: bool  # whether something waits there


class PostgresLog(Log):
    """See ``Log``.

    Args:
        place: where it is, and how it is used.
    """

    def __init__(self, place: Place) -> None:
        self.url = place.shown
        self._place = place
        self._sql = statements(place.names)
        self._server = Server(place)
        self._bell = Doorbell(self._server, place.names.bell, place.doorbell == "poll", self.url)
        self._patience = text(f"{place.timeout_s * _LOCK_SHARE * 1000:.0f}ms")
        self._mark: Mark | None = None
        self._spare_epoch = new_epoch()
        self._waited = 0  # up to where one that waits has everything
        self._own = 0  # up to where that is so together with what was appended here
        self._looked_at = 0.0

    def open(self, *, renew: str | None = None) -> None:
        if self._server.log_id is None:
            if self._server.make_ready():
                logger.info("made the log %s", self.url)
            self._look_and_move()
        self._server.check_open()
        if renew is not None:
            self._renew(renew)

    def exists(self) -> bool:
        """See ``Findable.exists``."""
        return self._server.exists()

    def install(self) -> str | None:
        """See ``Installable.install``."""
        if not self._server.make_ready(make=True):
            return None
        schema, prefix = self._place.names
        return f"the tables and functions {schema}.{prefix}_*"

    def append(self, events: Sequence[Event]) -> Appended:
        given = list(events)
        values, batch, mark = event_values(given), new_batch(), self._mark

        def append(session: Session) -> Appended:
            sync = text(self._place.sync)
            answer = session.ask(
                self._sql.append,
                *(bigint(batch), text(self._spare_epoch), *Mark.values(mark), sync, self._patience, *values),
            )
            epoch, first, last, seqs, stored_at = row_of(answer)
            (begin,), (end,) = read_int8(first), read_int8(last)
            found = read_bigints(seqs) if seqs is not None else range(begin, end + 1)
            return Appended(epoch.decode(), begin, found, read_float8(stored_at)[0])

        try:
            appended = self._server.ask(f"store {len(given)} event(s)", append)
        except Lost as lost:
            appended = self._settle(given, batch, mark, lost)
        self._took(appended, batch)
        return appended

    def read(self, after: int, limit: int) -> list[Record]:
        def read(session: Session) -> PGresult:
            return _some(
                session.ask(
                    self._sql.read,
                    *(bigint(after), bigint(max(0, limit)), bigint(READ_BYTES), *Mark.values(self._mark)),
                )
            )

        answer = self._server.certain(f"read after {after}", read)
        epoch, has_lost = row_of(answer)[:2]
        if has_lost == b"\1":
            self._begin_anew(epoch.decode())
            return self.read(after, limit)
        records = read_records(answer)
        if records:
            (batch,) = read_int8(row_of(answer, len(records) - 1)[3])
            self._saw(records[-1].epoch, records[-1].seq, batch)
        return records

    def latest(self, subscription: Subscription, limit: int, *, ends: bool) -> list[Record]:
        """See ``History.latest``."""
        values = [*subscription_values(subscription), bigint(limit), boolean(ends)]
        return read_records(
            self._server.certain(
                "find the newest records", lambda session: session.ask(self._sql.latest, *values)
            )
        )

    def bounds(self) -> Bounds:
        state = self._look()
        return Bounds(state.epoch, state.trimmed + 1, state.head)

    def wait(self, after: int) -> None:
        self._server.make_ready()
        until = time.monotonic() + WAIT_S
        self._waited = after
        epoch = self._mark.epoch if self._mark is not None else None
        while True:
            told = self._bell.wait(until)
            self._server.check_open()
            over = time.monotonic() >= until
            if told is None:  # what was before was not heard
                state = self._look_and_move()
                if over or not self._bell.polls or state.epoch != epoch or not self._knows(state.head):
                    return
                continue
            if "outbox" in told or (over and time.monotonic() - self._looked_at > LOOK_EVERY_S):
                self._look_and_move()
            if over or not all(news.isdigit() and self._knows(int(news)) for news in told):
                return

    def trim(self, retention: Retention) -> int:
        age_s, events, size = retention
        values = [double(age_s), bigint(events), bigint(size), integer(TRIM_STEP)]

        def step(session: Session) -> int:
            return int(read_int8(row_of(session.ask(self._sql.trim, *values))[0])[0])

        removed = 0
        while now := self._server.certain("trim", step):
            removed += now
        self._server.certain("trim", lambda session: session.ask(self._sql.forget))
        return removed

    def store_in(self, connection: Any, events: Sequence[Event]) -> None:
        """See ``Transactional.store_in``."""
        self._server.make_ready()
        outbox.store(connection, self._place, self._server.log_id or "", events)

    async def astore_in(self, connection: Any, events: Sequence[Event]) -> None:
        """See ``Transactional.astore_in``."""
        if self._server.log_id is None:
            await asyncio.to_thread(self._server.make_ready)
        self._server.check_open()
        await outbox.astore(connection, self._place, self._server.log_id or "", events)

    def close(self) -> None:
        self._server.close()
        self._bell.close()

    def _look(self) -> _State:
        answer = self._server.certain(
            "find the bounds", lambda session: _some(session.ask(self._sql.look, *Mark.values(self._mark)))
        )
        epoch, trimmed, head, batch, has_lost, waits = row_of(answer)
        state = _State(epoch.decode(), read_int8(trimmed)[0], read_int8(head)[0], waits == b"\1")
        if has_lost == b"\1":
            self._begin_anew(state.epoch)
            return self._look()
        if batch is not None:
            self._saw(state.epoch, state.head, read_int8(batch)[0])
        return state

    def _look_and_move(self) -> _State:
        """See what is there; and if something waits in the outbox, move it into the log."""
        self._looked_at = time.monotonic()
        state = self._look()
        if not state.outbox:
            return state
        self.append([])  # which moves it first
        return self._look()

    def _saw(self, epoch: str, seq: int, batch: int) -> None:
        """Take note of the newest record that is known."""
        mark = self._mark
        if mark is None or mark.epoch != epoch:
            self._own = 0
        elif mark.seq >= seq:
            return
        self._mark = Mark(epoch, seq, batch)

    def _took(self, appended: Appended, batch: int) -> None:
        """Take note of what was appended here: one that waits here need not be woken for it."""
        epoch, first, seqs, _ = appended
        if epoch == self._spare_epoch:
            logger.warning("%s had lost what it had; a new epoch has begun", self.url)
            self._spare_epoch = new_epoch()
        last = max(seqs, default=0)
        if last >= first:
            self._saw(epoch, last, batch)
            if self._knows(first - 1):
                self._own = last

    def _knows(self, head: int) -> bool:
        """Whether one that waits has everything up to a head, or it was appended here."""
        return head <= max(self._waited, self._own)

    def _begin_anew(self, epoch: str) -> None:
        logger.warning("%s has lost what it had; a new epoch begins", self.url)
        self._renew(epoch)
        self._mark = None

    def _renew(self, epoch: str) -> None:
        values = [text(epoch), text(new_epoch()), self._patience]
        self._server.certain("begin a new epoch", lambda session: session.ask(self._sql.renew, *values))

    def _settle(self, events: list[Event], batch: int, mark: Mark | None, lost: Lost) -> Appended:
        """Find out what became of an append that was not answered. See ``settle``."""
        values = [bigint(batch), *Mark.values(mark)[1:], self._patience]

        def ask() -> PGresult:
            return self._server.ask(
                "find out what was stored", lambda session: session.ask(self._sql.settle, *values)
            )

        stored = settle(ask, lost, len(events), self._place, self._server.over)
        if len(stored.unkeyed) == len(events):
            return Appended(stored.epoch, stored.first, stored.unkeyed, stored.time)
        # Those with keys are all there by now, be it of old: none is stored again, each is found by its key.
        keyed = iter(self.append([event for event in events if event.key is not None]).seqs)
        unkeyed = iter(stored.unkeyed)
        seqs = [next(unkeyed if event.key is None else keyed) for event in events]
        return Appended(stored.epoch, stored.first, seqs, stored.time)


def _some(answer: PGresult) -> PGresult:
    """An answer that has a row, unless there is no log."""
    if not answer.ntuples:
        raise Refusal(NO_ROW, "the log has no row")
    return answer
