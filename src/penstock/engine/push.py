"""A stream that is pushed: a client's socket that a server handed over, written to by the engine's loop.

It costs a descriptor, a position and this object: no thread, no task, no queue. What is new is sent at
once, without asking the loop whether the socket is ready, since it nearly always is. A client that takes
no more keeps the rest of the one event that it has half of; everything after that it reads from ring or
log once it is ready again.

All happens on the loop, but for reading in the log, which a thread does meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from os import write
from typing import NamedTuple

from penstock.core.position import Gap
from penstock.core.stream import Closing, Input, State, Stream
from penstock.core.wire import LAST_CHUNK, Block, Entry, Item, encode_chunk, encode_item, encode_item_chunk
from penstock.engine.feed import Feed, Next
from penstock.engine.lane import GONE
from penstock.engine.patience import Patience, borrowed
from penstock.engine.phrases import Failures, last_words
from penstock.engine.ring import Ring
from penstock.log.base import Log
from penstock.threads import Pool

BLOCKS_AT_ONCE = 4  # of one stream that has much to read, before the others have their turn
STRAY_BYTES = 64 * 1024  # a client that sends more than this after its request is none
_READ_SIZE = 16 * 1024


class Connection(NamedTuple):
    """A client's connection that a door hands over, head of the response and all.

    Attributes:
        fd: the descriptor of its socket, which the engine will close.
        chunked: whether the head announced chunked coding.
        over: called when the stream is over and the descriptor closed.
    """

    fd: int
    chunked: bool
    over: Callable[[], None]


class Outlet(NamedTuple):
    """What all pushed streams of a process share.

    Attributes:
        loop: the engine's.
        readers: the threads that read in the log.
        failures: tells of errors.
        patience: with clients that take nothing.
        part: forgets a stream that is over.
    """

    loop: asyncio.AbstractEventLoop
    readers: Pool
    failures: Failures
    patience: Patience
    part: Callable[[Push], None]


class Push(Feed):
    """A pushed stream.

    Args:
        log: see ``Feed``.
        ring: see ``Feed``.
        stream: see ``Feed``.
        connection: its client.
        outlet: what it shares with others.
    """

    __slots__ = (
        "_chunked",
        "_due",
        "_ending",
        "_fd",
        "_in_lane",
        "_missed",
        "_outlet",
        "_over",
        "_reading",
        "_rest",
        "_stray",
    )

    client = True

    def __init__(self, log: Log, ring: Ring, stream: Stream, connection: Connection, outlet: Outlet) -> None:
        super().__init__(log, ring, stream)
        self._fd, self._chunked, self._over = connection
        self._outlet = outlet
        self._rest: bytes | None = None  # of what its client takes no more of for now
        self._in_lane = False
        self._reading = False  # a thread reads for it, and has the stream to itself
        self._missed = False  # there was news meanwhile
        self._due = False  # the others have their turn, and then it goes on
        self._ending = False  # its last bytes are on their way
        self._stray = 0  # bytes that came after the request

    @property
    def lagging(self) -> bool:
        """Whether it has not got all that there is."""
        return self.stream.state is State.LAGGING or self._rest is not None

    def begin(self, greeting: bytes) -> bool:
        """Send the first bytes and listen for the client's departure. False if it left already."""
        try:
            self._outlet.loop.add_reader(self._fd, self._on_readable)
        except OSError:  # the kernel watches no more
            self.cut()
            return False
        self._send(encode_chunk(greeting) if self._chunked else greeting)
        return self._fd >= 0

    def news(self) -> None:
        """See ``Member``: send it, if the client has taken all before."""
        self.step_out()
        if self._reading:
            self._missed = True
        elif self._rest is not None:
            self.stream.feed(Input.FELL_BEHIND)
        elif not self._due:
            self._stalled = False
            self._pump()

    def read(self) -> Block | None:
        """See ``Feed``; nothing is read for a client that left before its turn came."""
        return super().read() if self._fd >= 0 else None

    def close(self, why: Closing) -> None:
        """End the stream, once the client has taken what is on its way."""
        if self._closing is None:
            self._closing = why
        self.step_out()
        if self._rest is None and not self._reading:
            self._pump()

    def cut(self) -> None:
        """Close the connection, whatever is on its way."""
        if self._fd < 0:
            return
        loop, fd = self._outlet.loop, self._fd
        self.step_out()
        self._fd, self._rest, self._ending = -1, None, True
        loop.remove_reader(fd)
        loop.remove_writer(fd)
        self._outlet.patience.forget(fd)
        with contextlib.suppress(OSError), borrowed(fd) as connection:
            connection.shutdown(socket.SHUT_RDWR)  # a process that was forked meanwhile may hold it too
        os.close(fd)
        self.stream.close(self._closing or Closing.LEFT)
        # Not now: whoever iterates over an audience must not see it change.
        loop.call_soon(self._part)

    def _enter_lane(self) -> None:
        """Go on with the others that have all there is, unless something sets this stream apart."""
        audience = self.audience
        if audience is None or self._stalled or self.stream.ended:
            return
        if self.stream.seq > self._ring.head:
            return  # its client was faster than the tail: it had records from another process already
        lane = audience.lane(self._chunked)
        if not lane.runners:
            lane.seq = self.stream.seq
        lane.runners[self._fd] = self
        audience.members.discard(self)
        self._in_lane = True

    def step_out(self) -> None:
        """See ``Runner``; nothing if it is in none."""
        if self._in_lane:
            assert self.audience is not None
            self.audience.lane(self._chunked).runners.pop(self._fd, None)
            self._fall_out(self.audience.lane(self._chunked).seq)

    def fall_behind(self, block: Block, seq: int, sent: int) -> None:
        """See ``Runner``."""
        self._fall_out(seq)
        if sent == GONE:
            self.cut()
            return
        self.delivered += block.events
        self.bytes += sent
        data = block.chunks if self._chunked else block.wire
        self._wait(self._keep(block, data, sent))

    def _fall_out(self, seq: int) -> None:
        assert self.audience is not None
        self._in_lane = False
        self._beat = self.audience.beat
        self.stream.skip_to(seq)
        self.audience.members.add(self)

    def _part(self) -> None:
        self._over()  # first: whoever sees that there is one stream less, finds a place
        self._outlet.part(self)

    def _pump(self) -> None:
        """Send what there is, until the client takes no more or there is nothing."""
        if self._ending:
            return
        stream = self.stream
        if self._closing is not None:
            stream.close(self._closing)
        blocks = 0
        while stream.state is not State.CLOSED:
            step = self._next()
            if step is Next.WAIT:
                self._outlet.failures.over()
                self._enter_lane()
                return
            if step is Next.READ:
                self._read_on()
                return
            if isinstance(step, Block):
                if not self._send_block(step):
                    return
                blocks += 1
                if blocks == BLOCKS_AT_ONCE:
                    stream.feed(Input.FELL_BEHIND)
                    self._due = True
                    self._outlet.loop.call_soon(self._go_on)
                    return
        self._end(last_words(stream))

    def _go_on(self) -> None:
        self._due = False
        self._pump()

    def _end(self, words: bytes) -> None:
        self._ending = True
        if self._chunked:
            words = (encode_chunk(words) if words else b"") + LAST_CHUNK
        if not words or self._send(words):
            self.cut()

    def _send(self, data: bytes) -> bool:
        """Send bytes. False if they did not all leave: what is to follow must wait."""
        sent = self._write(data)
        if sent == len(data):
            return True
        if sent >= 0:
            self._wait(data[sent:])
        return False

    def _send_block(self, block: Block) -> bool:
        """Send a block, or as much as its client takes up to the end of an event."""
        data = block.chunks if self._chunked else block.wire
        sent = self._write(data)
        if sent == len(data):
            return True
        if sent >= 0:
            self._wait(self._keep(block, data, sent))
        return False

    def _write(self, data: bytes) -> int:
        """How many bytes the client's socket took; below zero if there is no client any more."""
        try:
            sent = write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.cut()
            return -1
        self.bytes += sent
        return sent

    def _keep(self, block: Block, data: bytes, sent: int) -> bytes:
        """What is left of the event that is half sent; the stream goes back to its end.

        Thousands of clients that take no more would otherwise hold a block each.
        """
        items = block.items
        encode = encode_item_chunk if self._chunked else encode_item
        start = 0
        for index, item in enumerate(items):
            end = start + len(encode(item))
            if sent < end:
                later = items[index + 1 :]
                if all(isinstance(x, Entry) and not x.record.end for x in later):
                    self.stream.back_to(_seq(item))
                    self.delivered -= len(later)
                    return data[sent:end]
                break
            start = end
        return data[sent:]

    def _wait(self, rest: bytes) -> None:
        self._rest = rest
        self.stream.feed(Input.FELL_BEHIND)
        self._outlet.patience.look_after(self._fd)
        self._outlet.loop.add_writer(self._fd, self._on_writable)

    def _on_writable(self) -> None:
        rest = self._rest
        if rest is None:
            return
        sent = self._write(rest)
        if sent < 0:
            return
        if sent < len(rest):
            self._rest = rest[sent:]
            return
        self._rest = None
        self._outlet.loop.remove_writer(self._fd)
        if self._ending:
            self.cut()
        elif not self._reading:
            self._pump()

    def _on_readable(self) -> None:
        try:
            got = len(os.read(self._fd, _READ_SIZE))
        except BlockingIOError:
            return
        except OSError:
            got = 0
        self._stray += got
        if not got or self._stray > STRAY_BYTES:
            self.cut()

    def _read_on(self) -> None:
        """Let a thread read in the log."""
        self._reading = True
        reading = self._outlet.readers.submit_for(self._outlet.loop, self.read)
        reading.add_done_callback(self._on_read)

    def _on_read(self, reading: asyncio.Future[Block | None]) -> None:
        self._reading = False
        if self._fd < 0 or reading.cancelled():
            return
        if self._missed:
            self._missed = self._stalled = False
        error = reading.exception()
        if error is not None:
            failures = self._outlet.failures
            assert isinstance(error, Exception)
            self.stream.close(Closing.FAILED)
            self._end(failures.on_the_way(self.subscription, error))
            return
        block = reading.result()
        if block is None or self._send_block(block):
            self._pump()


def _seq(item: Item) -> int:
    """Where a stream is that has had this."""
    if isinstance(item, Entry):
        return item.record.seq
    return item.resumes.seq if isinstance(item, Gap) else item.seq
