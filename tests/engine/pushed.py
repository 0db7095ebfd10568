"""Streams that an engine pushes to real sockets, and a client that reads them and forgives nothing."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from penstock import Event, Penstock, Position
from penstock.core.channel import Subscription
from penstock.engine.engine import Engine
from penstock.engine.origin import Origin, Wish
from penstock.engine.push import Connection, Push
from tests.support.wait import DEADLINE_S, wait_for

T = TypeVar("T")

NOW = Wish()
SMALL = 4096  # what a socket holds each way, so that most writes are partial
_LONGEST_SIZE_LINE = 8
_LINE_END = re.compile("\r\n|\r|\n")
_ID = re.compile(rb"id: ([0-9a-z]+):(\d+)\n")
_POSITION = re.compile(rb"(retry: \d+\n)?id: [0-9a-z]+:\d+\nevent: penstock\.position\ndata: \n\n")
_GAP = re.compile(rb"(retry: \d+\n)?id: [0-9a-z]+:\d+\nevent: penstock\.gap\ndata: ({.*})\n\n")


def block_of(event: Event, position: Position) -> bytes:
    """The bytes that an event is to arrive as, made apart from ``penstock.core.wire``."""
    if event.end:
        ended = json.dumps({"channel": event.channel})
        return f"id: {position}\nevent: penstock.end\ndata: {ended}\n\n".encode()
    lines = [f"id: {position}"]
    lines += [f"event: {event.event}"] if event.event else []
    lines += [f"retry: {event.retry}"] if event.retry is not None else []
    lines += [f"data: {line}" for line in _LINE_END.split(event.data)]
    return ("\n".join(lines) + "\n\n").encode()


class Dechunker:
    """Takes the chunked coding off, and refuses whatever is not exactly as RFC 9112 has it."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0  # of the chunk that is under way
        self._ends = False  # its data is complete, its line end is not
        self.over = False

    def feed(self, data: bytes) -> bytes:
        self._rest += data
        body = b""
        while self._rest:
            assert not self.over, f"bytes after the last chunk: {self._rest[:80]!r}"
            if self._left:
                body += self._rest[: self._left]
                taken = min(self._left, len(self._rest))
                self._rest, self._left = self._rest[taken:], self._left - taken
                self._ends = not self._left
            elif self._ends:
                if len(self._rest) < 2:
                    break
                assert self._rest.startswith(b"\r\n"), f"no line end after a chunk: {self._rest[:80]!r}"
                self._rest, self._ends = self._rest[2:], False
            elif not self._begin_chunk():
                break
        return body

    def _begin_chunk(self) -> bool:
        line, end, rest = self._rest.partition(b"\r\n")
        if not end:
            assert re.fullmatch(rb"[0-9a-f]{0,8}\r?", line), f"no size of a chunk: {line[:80]!r}"
            return False
        if line == b"0":
            if len(rest) < 2:
                return False
            assert rest[:2] == b"\r\n"
            self.over, self._rest = True, rest[2:]
            return True
        assert re.fullmatch(rb"[1-9a-f][0-9a-f]{0,7}", line), f"no size of a chunk: {line[:80]!r}"
        self._rest, self._left = rest, int(line, 16)
        return True


class Client:
    """The far end of a stream: what it has received, block by block.

    Attributes:
        blocks: the whole blocks.
        bytes: all that came, coding and half blocks included.
        gone: whether the connection is over.
        places_given_back: how often its place was given back.
    """

    def __init__(self, near: socket.socket, chunked: bool) -> None:
        self.socket = near
        self.socket.setblocking(False)
        self.chunked = chunked
        self.blocks: list[bytes] = []
        self.bytes = 0
        self.gone = False
        self.places_given_back = 0
        self._coding = Dechunker() if chunked else None
        self._half = b""

    def read(self, most: int = 1 << 16) -> int:
        """Read what is there, up to so many bytes; how many there were."""
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return 0
        except ConnectionError:
            data = b""
        if not data:
            self.gone = True
            return 0
        self.bytes += len(data)
        self._half += self._coding.feed(data) if self._coding is not None else data
        *whole, self._half = self._half.split(b"\n\n")
        self.blocks += [block + b"\n\n" for block in whole]
        return len(data)

    def read_all(
        self, until: Callable[[], bool], what: str | Callable[[], str] = "the client has all"
    ) -> None:
        """Read as fast as can be until something is so."""

        def step() -> bool:
            while self.read():
                pass
            return until()

        wait_for(step, what=what)

    def read_blocks(self, count: int) -> list[bytes]:
        """Read until there are so many blocks in all, and give them."""
        self.read_all(
            lambda: len(self.blocks) >= count,
            lambda: f"{count} blocks: {len(self.blocks)} {self.blocks[-2:]} gone={self.gone}",
        )
        return self.blocks

    def read_to_end(self) -> list[bytes]:
        """Read until the connection is over, and give all blocks; with a last chunk, if there are chunks."""
        self.read_all(lambda: self.gone, "the stream ends")
        assert not self._half, f"half a block at the end: {self._half!r}"
        assert self._coding is None or self._coding.over, "no last chunk"
        return self.blocks

    @property
    def events(self) -> list[bytes]:
        """The blocks of records."""
        return [block for block in self.blocks if not is_position(block) and gap_in(block) is None]

    @property
    def last_event_id(self) -> str | None:
        """What an EventSource would come back with."""
        found = _ID.search(self.blocks[-1]) if self.blocks else None
        return f"{found[1].decode()}:{found[2].decode()}" if found else None

    def close(self) -> None:
        self.socket.close()


def is_position(block: bytes) -> bool:
    return _POSITION.fullmatch(block) is not None


def gap_in(block: bytes) -> dict[str, str] | None:
    found = _GAP.fullmatch(block)
    return json.loads(found[2]) if found else None


def seq_of(block: bytes) -> int:
    found = _ID.search(block)
    assert found, f"a block without an id: {block!r}"
    return int(found[2])


def sockets(tcp: bool, size: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection: what a server hands over, and what its client has."""
    if not tcp:
        ours, near = socket.socketpair()
    else:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            near = socket.socket()
            if size is not None:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            near.connect(listener.getsockname())
            ours, _ = listener.accept()
    if size is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    ours.setblocking(False)
    return ours, near


def find_origin(
    engine: Engine, channels: Iterable[str], wish: Wish = NOW, last_event_id: str | None = None
) -> tuple[Subscription, Origin]:
    engine.start("a test")
    subscription = Subscription(channels)
    return subscription, engine.find_origin(subscription, wish, last_event_id)


def open_stream(
    engine: Engine,
    *channels: str,
    wish: Wish = NOW,
    last_event_id: str | None = None,
    chunked: bool = True,
    tcp: bool = False,
    size: int | None = None,
) -> Client:
    """Open a stream as a door does: hand its descriptor over."""
    subscription, origin = find_origin(engine, channels, wish, last_event_id)
    return hand_over(engine, subscription, origin, chunked=chunked, tcp=tcp, size=size)


def hand_over(
    engine: Engine,
    subscription: Subscription,
    origin: Origin,
    *,
    chunked: bool = True,
    tcp: bool = False,
    size: int | None = None,
) -> Client:
    ours, near = sockets(tcp, size)
    client = Client(near, chunked)

    def over() -> None:
        client.places_given_back += 1

    engine.push(Connection(ours.detach(), chunked, over), subscription, origin)
    return client


def on_loop(engine: Engine, call: Callable[[], T]) -> T:
    """Call something on the engine's loop, and wait for its answer."""
    done = threading.Event()
    answers: list[T] = []

    def run() -> None:
        try:
            answers.append(call())
        finally:
            done.set()

    assert engine._call_on_loop(run)
    assert done.wait(DEADLINE_S)
    assert answers, "it failed on the loop"
    return answers[0]


def pushes(engine: Engine) -> list[Push]:
    """The pushed streams that are open."""
    return [stream for stream in engine._streams.open if isinstance(stream, Push)]


def runners(engine: Engine) -> int:
    """How many streams are in lanes."""
    return sum(len(lane.runners) for each in list(engine._fanout.audiences.values()) for lane in each.lanes)


def in_lane(engine: Engine, count: int) -> None:
    """Wait until so many streams run in lanes."""
    wait_for(
        lambda: runners(engine) == count, what=lambda: f"{count} streams in lanes, not {runners(engine)}"
    )


def publish(bus: Penstock, channel: str, *data: str) -> list[bytes]:
    """Publish one after the other, and give the blocks that are to arrive."""
    return [block_of(Event(channel, each), bus.publish(channel, each)) for each in data]


def seen(bus: Penstock) -> None:
    """Wait until the engine has fanned out all that the log has."""
    wait_for(lambda: bus.stats().tail_lag == 0, what="all is fanned out")


@contextlib.contextmanager
def closing(*clients: Client):  # type: ignore[no-untyped-def]
    try:
        yield
    finally:
        for client in clients:
            client.close()
