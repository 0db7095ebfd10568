"""Who is to hear of a record: audiences, and the streams in them.

Streams with an equal subscription form one audience, so matching and joining is done once for all of
them. Everything here happens on the engine's loop.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol

from penstock.core.channel import Subscription, matches
from penstock.core.position import Position
from penstock.core.wire import Block, Entry
from penstock.engine.lane import Lane
from penstock.engine.ring import BLOCK_BYTES

MAX_ROUTES = 10_000  # remembered answers to "which patterns cover this channel?"; more are asked again
TURN_KEPT_S = 0.5  # a block that all have taken must not rest in the memory of a quiet audience


class Member(Protocol):
    """A live stream, as the loop sees it."""

    subscription: Subscription

    def news(self) -> None:
        """There is something new, for this stream or in its state."""


class Turn:
    """What one turn of the loop brought an audience.

    A stream of the audience that stands anywhere from ``after`` to ``before`` goes to ``upto`` with this
    block, and misses nothing: on the way there is nothing else of its own.
    """

    __slots__ = ("after", "before", "block", "ends", "epoch", "events", "upto")

    def __init__(self, after: int, before: int, upto: int, entries: list[Entry]) -> None:
        self.epoch = entries[0].record.epoch
        self.after = after
        self.before = before
        self.upto = upto
        self.block = Block(entries)
        self.events = len(entries)
        self.ends = any(entry.record.end for entry in entries)


class Audience:
    """All live streams of this process with the same subscription."""

    __slots__ = ("beat", "lanes", "members", "quiet_since", "subscription", "turn", "upto")

    def __init__(self, subscription: Subscription, head: int, now: float) -> None:
        self.subscription = subscription
        self.members: set[Member] = set()  # but for those in the lanes
        self.lanes: tuple[Lane, ...] = ()
        self.upto = head  # after this nothing of the audience's came but by turns
        self.turn: Turn | None = None
        self.quiet_since = now
        self.beat = 0  # counts the keep-alives

    @property
    def empty(self) -> bool:
        """Whether nobody is left."""
        return not self.members and not any(lane.runners for lane in self.lanes)

    def lane(self, chunked: bool) -> Lane:
        """The lane for this coding."""
        for lane in self.lanes:
            if lane.chunked is chunked:
                return lane
        lane = Lane(chunked)
        self.lanes += (lane,)
        return lane

    def break_up(self) -> None:
        """Let the streams in the lanes go on alone."""
        for lane in self.lanes:
            for runner in list(lane.runners.values()):
                runner.step_out()


_NOBODY: frozenset[Audience] = frozenset()


class Fanout:
    """The audiences of a process."""

    def __init__(self, keep_alive_s: float) -> None:
        self._keep_alive_s = keep_alive_s
        self.audiences: dict[Subscription, Audience] = {}
        # Clients come and go all the time, often each with a channel of its own: neither may cost more
        # the more audiences there are, and so nor may a channel that was not heard of before.
        self._by_channel: dict[str, set[Audience]] = {}
        self._by_pattern: dict[str, set[Audience]] = {}
        self._routes: dict[str, tuple[str, ...]] = {}  # the patterns that cover a channel
        self.delivered = 0  # events to streams in lanes, which do not count themselves
        self.bytes = 0

    def join(self, member: Member, head: int, now: float) -> Audience:
        """Add a stream. ``head`` is the seq of the newest record that was fanned out."""
        audience = self.audiences.get(member.subscription)
        if audience is None:
            audience = Audience(member.subscription, head, now)
            self.audiences[member.subscription] = audience
            self._add(audience)
        audience.members.add(member)
        return audience

    def shared(self, subscription: Subscription) -> Subscription:
        """An equal one that streams have already, if there is one: each is some 700 bytes. Any thread."""
        audience = self.audiences.get(subscription)
        return subscription if audience is None else audience.subscription

    def leave(self, member: Member) -> None:
        """Remove a stream; the last of an audience takes the audience along."""
        audience = self.audiences.get(member.subscription)
        if audience is not None:
            audience.members.discard(member)
            if audience.empty:
                del self.audiences[member.subscription]
                self._remove(audience)

    def turn(self, entries: Sequence[Entry], before: int, now: float) -> None:
        """Give new entries to whom they concern.

        Args:
            entries: what directly follows ``before``.
            before: the seq before the first of them.
            now: the clock's time.
        """
        if not self.audiences:
            return
        mine: dict[Audience, list[Entry]] = {}
        for entry in entries:
            for audience in self._route(entry.record.channel):
                mine.setdefault(audience, []).append(entry)
        upto = before + len(entries)
        for audience, concerned in mine.items():
            # One large block would stay in memory for each audience until the slowest has written it.
            small = sum(len(entry.record.data) for entry in concerned) <= BLOCK_BYTES
            turn = audience.turn = Turn(audience.upto, before, upto, concerned) if small else None
            audience.upto = upto
            audience.quiet_since = now
            # The lanes first: a stream that enters one now has had this turn already.
            if turn is not None and not turn.ends:
                self._send(audience, turn.block, upto, turn.events)
            else:
                audience.break_up()
            for member in tuple(audience.members):
                member.news()

    def _send(self, audience: Audience, block: Block, seq: int, events: int) -> None:
        for lane in audience.lanes:
            if lane.runners:
                takers, size = lane.send(block, seq)
                self.delivered += takers * events
                self.bytes += takers * size

    def sweep(self, position: Position | None, now: float) -> None:
        """Give each audience that was silent for long enough a keep-alive.

        Args:
            position: up to where all was fanned out; None while it is unknown.
            now: the clock's time.
        """
        for audience in self.audiences.values():
            if now - audience.quiet_since >= TURN_KEPT_S:
                audience.turn = None  # who has not taken it yet finds it in the ring
            if now - audience.quiet_since >= self._keep_alive_s:
                audience.quiet_since = now
                audience.beat += 1
                if position is not None and audience.lanes:
                    self._send(audience, Block([position]), position.seq, 0)
                for member in tuple(audience.members):
                    member.news()

    def restart(self, head: int) -> None:
        """Forget the turns: the log goes on elsewhere. All streams look where that leaves them."""
        for audience in self.audiences.values():
            audience.turn = None
            audience.upto = head
            audience.break_up()
        self.wake()

    def wake(self) -> None:
        """Let all streams look at the state of things again; those in lanes have all that there is."""
        for audience in list(self.audiences.values()):
            for member in tuple(audience.members):
                member.news()

    def _add(self, audience: Audience) -> None:
        for channel in audience.subscription.channels:
            self._by_channel.setdefault(channel, set()).add(audience)
        for pattern in audience.subscription.patterns:
            if pattern not in self._by_pattern:
                self._by_pattern[pattern] = set()
                self._routes.clear()
            self._by_pattern[pattern].add(audience)

    def _remove(self, audience: Audience) -> None:
        for channel in audience.subscription.channels:
            self._by_channel[channel].discard(audience)
            if not self._by_channel[channel]:
                del self._by_channel[channel]
        for pattern in audience.subscription.patterns:
            self._by_pattern[pattern].discard(audience)
            if not self._by_pattern[pattern]:
                del self._by_pattern[pattern]
                self._routes.clear()

    def _route(self, channel: str) -> Set[Audience]:
        named = self._by_channel.get(channel, _NOBODY)
        if not self._by_pattern:
            return named
        patterns = self._routes.get(channel)
        if patterns is None:
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            covering = (pattern for pattern in self._by_pattern if matches(pattern, channel))
            patterns = self._routes[channel] = tuple(covering)
        return named.union(*(self._by_pattern[pattern] for pattern in patterns)) if patterns else named
