"""The chain of messages: which one is the newest, and how another is added to it.

**Every message is added by compare-and-set.** It says what the log is with it (epoch, seqs, what was
trimmed), so its writer must know the one before; and JetStream takes it only if that one is still the
newest (``Nats-Expected-Last-Sequence``). Of several who write at once one wins; the others learn the newest
message, make theirs anew and try again. Who lost listens to the stream from then on, and so knows of a new
message as soon as its writer: else who has just won would win for ever.

**An answer that is lost is looked for.** The same message is sent again: both copies name the same message
before them, so at most one is ever stored, and a copy that still is on its way can do no harm. It is unsure
only if the server cannot be asked within the time.

**What was given out is never given out again.** A log object remembers the newest message that it knows, and
its random id. Whenever the connection was made anew, or nothing was heard for a while, it looks whether that
message is still there. If it is not, the stream has lost its end (or is a backup) and others may come to
have those seqs: so a new epoch begins, by compare-and-set as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.errors import LogDenied, LogUnavailable
from penstock.log.base import new_epoch
from penstock.log.nats.connection import Connection
from penstock.log.nats.entry import Entry, begin
from penstock.log.nats.errors import NO_STREAM, OTHERS_WROTE, NoResponders, Refused
from penstock.log.nats.follower import Follower
from penstock.log.nats.store import store
from penstock.log.nats.stream import Message, Stream
from penstock.log.nats.url import Settings

logger = logging.getLogger("penstock.log")

Make = Callable[[Entry, bool], Awaitable[list[Message]]]

SURE_S = 2.0  # no server that lost what it had is back sooner
LISTEN_S = 30.0  # who did not need to hear for so long listens no more
_HEAR_WITHIN_S = 0.02  # what was stored is heard of by then, or was missed
_SIGNPOSTS_WITHIN_S = 0.05  # from the first signpost to the message it points to; or its writer died
_PAUSE_S = 0.02  # between questions to servers of which one is behind
_CALM_LOSSES = 3  # so many losses are nothing unusual; then some have to wait a little
_WAIT_S_PER_LOSS, _MOST_LOSSES = 0.001, 20


class Chain:
    """See above. All of it happens on the log's loop.

    Args:
        settings: of the log.
        connection: the log's.
        stream: the stream.

    Attributes:
        tip: the newest message that is known.
        follower: what the server told of.
    """

    def __init__(self, settings: Settings, connection: Connection, stream: Stream) -> None:
        self._settings = settings
        self._connection = connection
        self._stream = stream
        self._writing = asyncio.Lock()
        self._sure = 0, 0.0  # on which connection the tip was last known to be there, and when
        self._anchor: Entry | None = None  # up to here all is known to be one chain
        self._listening = 0  # on which connection
        self._needed_at = 0.0  # when somebody last wanted to hear
        self._in_flight = ""  # the id of what is being stored
        self._made = False
        self._settled = 0  # on which connection
        self._least = 0, 0.0  # the place that the newest has at least, and until when to insist on it
        self._others_head = 0  # the newest record that was not stored by this object
        self._renewed = False  # since the last wait
        self.tip: Entry | None = None
        self.follower = Follower()

    @property
    def connection_number(self) -> int:
        """Counts the connections that were made."""
        return self._connection.number

    # The newest message

    async def known(self) -> Entry:
        """The newest message, as far as is known; surely of the log that is there now."""
        if self.tip is not None and self._is_sure():
            return self.tip
        return await self.refresh()

    async def refresh(self) -> Entry:
        """The newest message that there is now."""
        while True:
            known, anchor = self.tip, self._anchor
            wanted: list[dict[str, Any]] = [{"last_by_subj": ">"}]
            if anchor is not None and (anchor is not known or not self._is_sure()):
                wanted.append({"seq": anchor.place})
            try:
                if not self._made:
                    await self._stream.make()
                    self._made = True
                number = self._connection.number
                if number != self._settled:
                    await self._settle()
                last, *still = await self._stream.get_all(wanted)
            except Refused as error:
                if error.number != NO_STREAM:
                    raise
                self._made = False
                continue
            least, until = self._least
            if (0 if last is None else last.place) < least and time.monotonic() < until:
                await asyncio.sleep(_PAUSE_S)
            elif last is None:
                await self._begin(known)
            elif known is not None and known.epoch == last.epoch and _is_lost(known, last, anchor, still):
                await self._renew_what_is_left(known, last)
            elif self.tip is known or (self.tip is not None and self.tip.epoch == last.epoch):
                self._sure = number, time.monotonic()
                if self.tip is None or self.tip.epoch != last.epoch:
                    self.follower.forget()
                    self._take(last)
                elif self.tip.place < last.place:
                    self._take(last)
                self._anchor = self.tip
                assert self.tip is not None
                return self.tip

    async def _settle(self) -> None:
        """On a new connection, find out what there must be, whoever answers.

        While the servers of a cluster agree on a new leader, one that was the leader answers too, or one
        that has not got everything yet.
        """
        self._least = 0, 0.0
        if self._stream.replicated:
            with contextlib.suppress(LogDenied):  # who may not write cannot ask so; all else works
                place = await self._stream.newest_place()
                self._least = place, time.monotonic() + self._stream.answer_s
        self._settled = self._connection.number

    def _is_sure(self) -> bool:
        number, at = self._sure
        return (
            number == self._connection.number
            and self._connection.is_connected
            and time.monotonic() - at < SURE_S
        )

    def _take(self, entry: Entry, *, own: bool = False) -> None:
        if not own:
            self._others_head = entry.head
        self._renewed |= self.tip is not None and self.tip.epoch != entry.epoch
        self.tip = entry
        self.follower.wake()

    async def _begin(self, known: Entry | None) -> None:
        """Store the first message of a log in a stream that has none."""
        found = await self._stream.look()
        if found is None or found.messages:
            return
        now = time.time()
        entry = begin(found.last + 1, new_epoch(), now)
        if known is not None and known.place == found.last:  # somebody removed all of them by hand
            entry = known.next(now, trimmed=known.head)
        await self._store_state(entry)

    async def _renew_what_is_left(self, known: Entry, last: Entry) -> None:
        entry = last.next(time.time(), epoch=new_epoch())
        if await self._store_state(entry):
            logger.warning(
                "%s lost what it had: its newest message was %d and is %d now. A new epoch begins",
                self._settings.url, known.place, last.place,
            )  # fmt: skip

    async def _store_state(self, entry: Entry) -> bool:
        message = Message(self._stream.subjects.state, entry)
        try:
            await self._stream.publish([message], entry.place - 1)
        except Refused as error:
            if error.number not in OTHERS_WROTE:
                raise
            return False
        return True

    # Adding to it

    async def commit(self, make: Make) -> tuple[Entry, list[Message]]:
        """Add messages, all or none.

        Args:
            make: makes them, given the newest entry, and whether to look what there is already: one that
                was to be the first of its subject was not. It is called again whenever others were faster.

        Returns:
            The entry that they follow, and the messages; none if ``make`` made none.

        Raises:
            AppendUnsure: if nobody can say whether they were added.
        """
        async with self._writing:
            began = time.monotonic()
            deadline = began + self._settings.timeout_s
            losses, look = 0, False
            tip = await self.known()
            while True:
                tip = await self._let_signposts_pass(tip)
                messages = await make(tip, look)
                if not messages:
                    return tip, []
                try:
                    refused = await self._store(messages, tip.place, deadline, explain=losses > 0)
                except NoResponders:  # the stream may be gone: to look for it makes it anew
                    if time.monotonic() > began + self._stream.answer_s:
                        raise
                    await asyncio.sleep(_PAUSE_S)
                    tip = await self.refresh()
                    continue
                if refused is None:
                    return tip, messages
                losses += 1
                if time.monotonic() > deadline:
                    raise LogUnavailable(
                        f"for {self._settings.timeout_s:g} s others were faster to write to "
                        f"{self._settings.url}; nothing was stored"
                    )
                look = refused.last is not None and refused.last <= tip.place  # of a subject, not the stream
                tip = await (self.refresh() if look else self._newer(tip, losses))

    async def _newer(self, tip: Entry, losses: int) -> Entry:
        """The newest entry, after others were faster."""
        if not await self.listen():
            if losses > _CALM_LOSSES:
                await asyncio.sleep(random.random() * _WAIT_S_PER_LOSS * min(losses, _MOST_LOSSES))
            await self.follower.wait_for(lambda: self.tip is not tip, _HEAR_WITHIN_S)
            if self.tip is not None and self.tip is not tip:
                return self.tip
        return await self.refresh()

    async def _let_signposts_pass(self, tip: Entry) -> Entry:
        """After a signpost its message is to come: whoever came between would make all of them void."""
        if not tip.left or not self._listening:
            return tip
        await self.follower.wait_for(lambda: self.tip is not None and not self.tip.left, _SIGNPOSTS_WITHIN_S)
        return await self.known()

    async def _store(
        self, messages: list[Message], after: int, deadline: float, *, explain: bool
    ) -> Refused | None:
        entry = messages[-1].entry
        self._in_flight = entry.id
        try:
            refused = await store(self._stream, messages, after, deadline, explain=explain)
        finally:
            self._in_flight = ""
        if refused is None:
            self._sure = self._connection.number, time.monotonic()
            self._take(entry, own=True)
            self._anchor = entry
        return refused

    async def renew(self, epoch: str) -> None:
        """Begin a new epoch if the present one is still this."""

        async def make(tip: Entry, look: bool) -> list[Message]:
            if tip.epoch != epoch:
                return []
            return [Message(self._stream.subjects.state, tip.next(time.time(), epoch=new_epoch()))]

        await self.refresh()
        await self.commit(make)

    # Hearing

    async def listen(self) -> bool:
        """Hear of what is stored from now on. False if this was so already."""
        self._needed_at = time.monotonic()
        await self._connection.ready()
        if self._listening == self._connection.number:
            return False
        self._stop = await self._stream.listen(self._hear)
        self._listening = self._connection.number
        return True

    def _hear(self, entry: Entry) -> None:
        tip, now = self.tip, time.monotonic()
        self.follower.hear(entry, tip)
        if entry.id == self._in_flight:
            return  # its own answer tells of it as well
        if tip is not None and entry.follows(tip) and self._anchor is tip:
            self._anchor, self._sure = entry, (self._connection.number, now)
        if tip is None or entry.place > tip.place:
            self._take(entry)
        elif entry.place == tip.place and entry.id != tip.id:
            self._sure = 0, 0.0
        if now - self._needed_at > LISTEN_S and self._listening == self._connection.number:
            self._listening = 0
            self._stopping = asyncio.ensure_future(self._stop())

    async def wait(self, after: int, timeout_s: float) -> None:
        """Return when there may be records of others after a seq, or another epoch."""
        if not await self.listen():  # else it may have been stored before
            await self.follower.wait_for(
                lambda: self._renewed or self._others_head > after or not self._connection.is_connected,
                timeout_s,
            )
        self._renewed = False

    def lost(self) -> None:
        """The connection broke: what was heard may be gone when it is made anew."""
        self.follower.forget()
        self.follower.wake()


def _is_lost(known: Entry, last: Entry, anchor: Entry | None, still: list[Entry | None]) -> bool:
    """Whether a message that was known is there no more, other than by a purge.

    Args:
        known: the newest that was known.
        last: the newest that there is.
        anchor: the newest up to which all is known to be one chain.
        still: what lies in its place, if that was asked.
    """
    return (
        last.place < known.place
        or (last.place == known.place and last.id != known.id)
        or any(one is not None and anchor is not None and one.id != anchor.id for one in still)
    )
