"""How a connection leaves the server that accepted it and becomes a stream of the engine's.

A server that can give a connection away puts an ``Offer`` into the request. The door takes the offer up
and answers with a head that is marked, and no body. The head goes its way through every middleware, so
whatever they add to it (cookies, CORS) arrives; out of the last of them comes either the marked head, and
then the server sends it and lets the connection go, or something else, and then nothing was handed over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from penstock.doors.ask import Ask
from penstock.engine.engine import Engine
from penstock.engine.origin import Origin
from penstock.engine.push import Connection

KEY = "penstock.offer"  # in a WSGI environment, and in an ASGI scope
ON_STOP = "penstock.on_stop"  # in an ASGI scope: called with an engine, to drain it when the server stops
MARK = "Penstock-Handed-Over"  # a header that never leaves the process


class Offer:
    """A server's offer to give a request's connection away.

    Args:
        server: its name, for the log line.
        fd: the descriptor of the connection.
        stopping: tells whether the server is to end; None if it will say so in another way.
    """

    __slots__ = ("_ticket", "fd", "server", "stopping")

    def __init__(self, server: str, fd: int, stopping: Callable[[], bool] | None = None) -> None:
        self.server = server
        self.fd = fd
        self.stopping = stopping
        self._ticket: Ticket | None = None

    def take(self, ticket: Ticket) -> tuple[str, str]:
        """Take it up: the door's part.

        Returns:
            The header that marks the answer's head.
        """
        self._ticket = ticket
        return MARK, "1"

    def ticket(self) -> Ticket | None:
        """What was taken up: the server's part, once, when the marked head came out."""
        ticket, self._ticket = self._ticket, None
        return ticket


class Ticket:
    """A stream that waits for its connection. Where it never comes, its place is given back.

    Args:
        engine: whose it will be.
        ask: what was asked for.
        origin: where it begins.
        give_back: gives its place back.
    """

    __slots__ = ("_ask", "_give_back", "_origin", "engine")

    def __init__(self, engine: Engine, ask: Ask, origin: Origin, give_back: Callable[[], None]) -> None:
        self.engine = engine
        self._ask = ask
        self._origin = origin
        self._give_back: Callable[[], None] | None = give_back

    def start(self, fd: int, *, chunked: bool) -> None:
        """Begin the stream. The descriptor is the engine's from now on, whatever happens.

        Args:
            fd: of the connection, on which the head has been sent.
            chunked: whether the head announced chunked coding.
        """
        give_back, self._give_back = self._give_back, None
        assert give_back is not None, "a ticket is for one stream"
        try:
            os.set_blocking(fd, False)
        except OSError:  # it is broken already
            with contextlib.suppress(OSError):
                os.close(fd)
            give_back()
            return
        connection = Connection(fd, chunked, give_back)
        self.engine.push(connection, self._ask.subscription, self._origin, self._ask.rights)

    def __del__(self) -> None:
        if self._give_back is not None:
            self._give_back()
