"""The door for any WSGI server.

Where the server offers its connections, a stream holds none of its threads. Else it holds one while it is
open, and so there is a limit: a server whose threads all wait for events answers nothing else. Past the
limit a client gets a bounded answer (what it missed, then an end and a time to come back), so that its
EventSource goes on and nothing is lost; a 503 would stop it for good. On a server with one thread for
all, every answer is of that kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from penstock import greenlets, threads
from penstock.core.wire import Block
from penstock.doors.ask import Ask
from penstock.doors.cors import Headers
from penstock.doors.handover import KEY, Offer, Ticket
from penstock.doors.opening import Client, decide, head_only, slice_of
from penstock.doors.over import over
from penstock.doors.places import Places, without_threads
from penstock.doors.watch import Watch
from penstock.doors.wsgi_servers import Server, client_socket, find_server, serves_one_at_a_time
from penstock.engine.engine import Engine
from penstock.engine.feed import Next
from penstock.engine.origin import Origin
from penstock.engine.phrases import greeting, last_words

logger = logging.getLogger("penstock.wsgi")


class Answer(NamedTuple):
    """What a face makes its framework's response of."""

    status: int
    headers: Headers
    body: Body | list[bytes]


class Door:
    """One process's streams over WSGI.

    Args:
        engine: gives this process's engine.
    """

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._places: WeakKeyDictionary[Engine, dict[tuple[bool, bool], Places]] = WeakKeyDictionary()
        self._mutex = threads.Lock()

    def answer(self, environ: dict[str, Any], ask: Ask) -> Answer:
        """Answer a request for a stream. To be called in the thread that handles it.

        Args:
            environ: the WSGI environment.
            ask: what is asked for.
        """
        engine = self._engine()
        if environ.get("REQUEST_METHOD") == "HEAD":
            over(engine, None, ask.on_close)()
            return Answer(200, head_only(engine, ask).headers, Body(_nothing(), None))
        offer: Offer | None = environ.get(KEY)
        shown = client_socket(environ)
        fd = offer.fd if offer is not None else shown.fileno() if shown is not None else None
        places = self._places_for(engine, environ, offer)
        client = Client(environ.get("REMOTE_ADDR") or None, fd)
        status, headers, words, origin, give_back = decide(engine, places, ask, client)
        end = over(engine, give_back, ask.on_close)
        if status != 200:
            end()
            return Answer(status, headers, [words])
        if origin is None:
            return Answer(status, headers, Body(_only(words), end))
        if give_back is None:
            return Answer(status, headers, Body(slice_of(engine, ask, origin), end))
        if offer is not None:
            headers.append(offer.take(Ticket(engine, ask, origin, end)))
            return Answer(status, headers, Body(_nothing(), None))
        return Answer(status, headers, Body(_stream(engine, ask, origin, environ), end))

    def _places_for(self, engine: Engine, environ: dict[str, Any], offer: Offer | None) -> Places:
        """The places for streams, on connections that are handed over or on threads."""
        kind = offer is not None, serves_one_at_a_time(environ)  # a connection may differ from the next
        known = self._places.get(engine, {})
        if kind in known:
            return known[kind]
        server = find_server(environ)  # in this thread: it is found on the stack
        return engine.apart(lambda: self._start(engine, environ, kind, offer or server))

    def _start(
        self, engine: Engine, environ: dict[str, Any], kind: tuple[bool, bool], leaves: Offer | Server
    ) -> Places:
        with self._mutex:
            known = self._places.setdefault(engine, {})
            if kind not in known:
                if isinstance(leaves, Offer):
                    known[kind] = without_threads(engine, leaves.server, leaves.stopping)
                else:
                    known[kind] = _on_threads(engine, leaves)
                if not engine.log.shared and environ.get("wsgi.multiprocess"):
                    logger.warning(
                        "%s is known to this process alone, and the server has several: events "
                        "published in one do not reach the streams of another. Use sqlite:///…",
                        engine.log.url,
                    )
            return known[kind]


class Body:
    """The body of an answer: an iterator of bytes.

    Args:
        chunks: the bytes.
        end: called once when it is over.
    """

    def __init__(self, chunks: Iterator[bytes], end: Callable[[], None] | None) -> None:
        self._chunks = chunks
        self._end = end

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        """See PEP 3333: called by the server, whatever happened."""
        end, self._end = self._end, None
        try:
            self._chunks.close()  # type: ignore[attr-defined]  # a generator
        finally:
            if end is not None:
                end()

    def __del__(self) -> None:
        self.close()  # a response that was never sent


def _nothing() -> Iterator[bytes]:
    """No body, and no length of one either."""
    yield from ()


def _only(words: bytes) -> Iterator[bytes]:
    yield words


def _stream(engine: Engine, ask: Ask, origin: Origin, environ: dict[str, Any]) -> Iterator[bytes]:
    woken = greenlets.new_event()
    pull = engine.open(ask.subscription, origin, woken.set, rights=ask.rights)
    watch = Watch(engine.loop, engine.patience, pull, client_socket(environ))
    try:
        first = greeting(origin, engine.options.retry)
        pull.count_bytes(len(first))
        yield first
        while True:
            woken.clear()
            step = pull.poll()
            if step is Next.WAIT:
                engine.failures.over()
                woken.wait()
                continue
            if step is Next.CLOSED:
                break
            block = engine.apart(pull.read) if step is Next.READ else step
            if isinstance(block, Block):
                pull.count_bytes(len(block.wire))
                yield block.wire
        if words := last_words(pull.stream):
            yield words
    except Exception as error:
        yield engine.failures.on_the_way(ask.subscription, error)
    finally:
        watch.end()
        engine.leave(pull)


def _on_threads(engine: Engine, server: Server) -> Places:
    """The places of streams that each hold a thread, or greenlet, of the server."""
    options = engine.options
    # No setting makes a second thread where there is one.
    limit = server.streams if options.max_streams is None or not server.streams else options.max_streams
    places = Places(
        limit,
        options.max_streams_per_client,
        refuses=options.overflow == "refuse" and server.streams > 0,
        told=_told(server, options.overflow),
        about=engine.log.url,
    )
    engine.start(f"WSGI on {server.name}, at most {limit} at once")
    if server.stopping is not None:
        engine.drain_when(server.stopping)
    if server.threads is not None and limit >= server.threads > 1:
        logger.warning(
            "max_streams is %d, and %s has %d %ss: once streams hold them all, no other "
            "request is answered. Give it more %ss, or lower PENSTOCK_MAX_STREAMS",
            limit, server.name, server.threads, server.unit, server.unit,
        )  # fmt: skip
    return places


def _told(server: Server, overflow: str) -> str:
    """What an operator is told when all places are taken."""
    name = server.name.replace("%", "%%")
    if not server.streams:
        return (
            f"{name} serves one request at a time and has %d places for streams, so they are answered as "
            f"short polls: events arrive some seconds late. {server.cure}"
        )
    return (
        f"all %d places for streams on {name} are taken; more are answered with '{overflow}'. Each stream "
        f"holds a {server.unit}: give the server more {server.unit}s, or raise max_streams "
        "(PENSTOCK_MAX_STREAMS)"
    )
