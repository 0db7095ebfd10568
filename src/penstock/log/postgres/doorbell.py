"""How a follower hears that there is something new: a connection of its own, which listens.

A notification means only "look": a follower also looks by itself now and then.

A pooler such as PgBouncer, where it gives each transaction another connection to the server, hands no
notification on. So one is sent first, on a channel of its own; where it is not heard, a follower polls.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time

from penstock import threads
from penstock.log.postgres.errors import of_loss, of_refusal
from penstock.log.postgres.server import Server
from penstock.log.postgres.session import Lost, Refusal, Session
from penstock.log.postgres.sql import quoted
from penstock.log.postgres.values import text

logger = logging.getLogger("penstock.log")

POLL_S = 0.1  # how often a follower looks that hears nothing
PING_S = 10.0  # after so long a silence the connection is asked whether it still is one
_HEARD_WITHIN_S = 1.0  # a notification takes a millisecond; a pooler that drops it, for ever
_NOTIFY = b"SELECT pg_notify($1, $2)"


class Doorbell:
    """The listening end. Any thread may wait; one at a time listens, the others wait for it.

    Args:
        server: makes the connection to listen on.
        channel: what is listened to.
        polls: whether not to listen at all.
        where: the log, for messages.
    """

    def __init__(self, server: Server, channel: str, polls: bool, where: str) -> None:
        self.polls = polls
        self._server = server
        self._channel = channel
        self._where = where
        self._listening = threads.Lock()  # held by the thread that does
        self._mutex = threads.Lock()  # guards what follows
        self._closed = threads.Event()
        self._wake: tuple[int, int] | None = None
        self._session: Session | None = None
        self._heard_at = 0.0

    def wait(self, until: float) -> list[str] | None:
        """What notifications said, once there are any; nothing after the time (monotonic) ``until``.

        None if it has only just begun to listen: what was before was not heard.

        Raises:
            PenstockError: there is no connection to be had.
        """
        left_s = until - time.monotonic()
        if self.polls or not self._listening.acquire(blocking=False):
            self._closed.wait(min(POLL_S, max(0.0, left_s)))
            return None if self.polls and left_s > 0 else []
        try:
            return self._listen(until)
        finally:
            self._listening.release()
            if self._closed.is_set():
                self._let_go()

    def close(self) -> None:
        """End a wait, and let go of the connection. May be called twice."""
        self._closed.set()
        with self._mutex:
            if self._wake is not None:
                os.write(self._wake[1], b"!")
        if self._listening.acquire(blocking=False):  # else the thread that listens does it
            self._let_go()
            self._listening.release()

    def _listen(self, until: float) -> list[str] | None:
        if self._closed.is_set():
            return []
        if self._session is None:
            self._begin()
            return None
        try:
            told = self._session.listen(until, self._pipe()[0])
            if told:
                self._heard_at = time.monotonic()
            elif time.monotonic() - self._heard_at > PING_S:
                self._session.ask(b"")
                self._heard_at = time.monotonic()
        except (Lost, Refusal):  # the next wait listens anew; and if the server is away, a read will tell
            self._drop()
            return None
        return told

    def _begin(self) -> None:
        session = self._server.connect_to_listen()
        try:
            if session.pooled and not self._is_heard(session):
                self.polls = True
                logger.warning(
                    "%s: notifications are not heard, as through a pooler in transaction mode; polling "
                    "every %g s instead. To be told at once, set listen=HOST:PORT of the server itself in "
                    "the URL; or doorbell=poll, to leave it so",
                    self._where, POLL_S,
                )  # fmt: skip
                session.close()
                return
            session.run(f"LISTEN {quoted(self._channel)}")
        except Refusal as refusal:
            session.close()
            raise of_refusal(refusal, "listen", self._where) from refusal
        except Lost as lost:
            session.close()
            raise of_loss(lost, "listen", self._where) from lost
        except BaseException:
            session.close()
            raise
        self._session = session
        self._heard_at = time.monotonic()

    def _is_heard(self, session: Session) -> bool:
        """Whether a notification arrives. On a channel of its own: a pooler's server may go on listening."""
        trial = f"penstock-{secrets.token_hex(8)}"
        session.run(f"LISTEN {quoted(trial)}")
        self._server.certain("notify", lambda other: other.ask(_NOTIFY, text(trial), text("")))
        heard = bool(session.listen(time.monotonic() + _HEARD_WITHIN_S, self._pipe()[0]))
        session.run(f"UNLISTEN {quoted(trial)}")
        return heard

    def _pipe(self) -> tuple[int, int]:
        with self._mutex:
            if self._wake is None:
                self._wake = os.pipe()
                if self._closed.is_set():
                    os.write(self._wake[1], b"!")
            return self._wake

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _let_go(self) -> None:
        """Only where nobody listens."""
        self._drop()
        with self._mutex:
            if self._wake is not None:
                for end in self._wake:
                    with contextlib.suppress(OSError):
                        os.close(end)
                self._wake = None
