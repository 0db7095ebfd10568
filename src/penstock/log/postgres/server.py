"""The server as a log sees it: asked through a few connections, and made ready by the first question."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from penstock import threads
from penstock.errors import Closed
from penstock.log.postgres import schema
from penstock.log.postgres.errors import MISSING, of_loss, of_refusal
from penstock.log.postgres.options import Place
from penstock.log.postgres.pool import Pool, connect
from penstock.log.postgres.session import Deaf, Lost, Refusal, Session

T = TypeVar("T")
Work = Callable[[Session], T]  # one statement


class Server:
    """Where a log rests. Any thread may ask.

    Args:
        place: where it is, and how it is used.

    Attributes:
        over: set when the log is closed.
        log_id: what tells the log from every other; None while it is not known to be there.
    """

    def __init__(self, place: Place) -> None:
        self.over = threads.Event()
        self.log_id: str | None = None
        self._place = place
        self._where = place.shown
        self._pool = Pool(self._connect, self._where, place.timeout_s)
        self._opening = threads.Lock()
        self._warned = False

    def make_ready(self, *, make: bool = False) -> bool:
        """See that the log is there.

        Args:
            make: make it if it is not, whatever the URL says.

        Returns:
            Whether it was made just now.
        """
        self.check_open()
        if self.log_id is not None:
            return False
        with self._opening:
            if self.log_id is not None:
                return False
            make = make or self._place.create == "use"
            log_id, made = self.certain(
                "open the log", lambda session: schema.prepare(session, self._place, make=make), ready=False
            )
            if not self._warned:
                self.certain(
                    "open the log", lambda session: schema.warn_of_settings(session, self._place), ready=False
                )
                self._warned = True
            self.log_id = log_id
        return made

    def exists(self) -> bool:
        """Whether somebody has made the log."""
        return self.certain(
            "look for the log", lambda session: schema.exists(session, self._place), ready=False
        )

    def certain(self, what: str, work: Work[T], *, ready: bool = True) -> T:
        """Ask for what may as well be asked for again: over a connection that had broken, it is.

        Args:
            what: what is asked for, for messages: "could not <what>".
            work: asks it.
            ready: see that the log is there before.
        """
        again = True
        while True:
            try:
                return self.ask(what, work, ready=ready)
            except Lost as lost:
                if not again or isinstance(lost, Deaf):
                    raise of_loss(lost, what, self._where) from lost
                again = False

    def ask(self, what: str, work: Work[T], *, ready: bool = True) -> T:
        """As ``certain``, but lets it be known that there was no answer.

        If it turns out that the log is not there, it is made anew, and asked once more.

        Raises:
            Lost: it was done or not.
            PenstockError: it was not done.
        """
        again = ready
        while True:
            if ready:
                self.make_ready()
            try:
                with self._pool.session() as session:
                    return work(session)
            except Refusal as refusal:
                if again and refusal.state in MISSING:
                    again, self.log_id = False, None
                    continue
                raise of_refusal(refusal, what, self._where) from refusal

    def check_open(self) -> None:
        """Raise Closed after ``close``."""
        if self.over.is_set():
            raise Closed(f"the log {self._where} is closed")

    def close(self) -> None:
        """Ask nothing more; what was asked comes to its end."""
        self.over.set()
        self._pool.close()

    def connect_to_listen(self) -> Session:
        """A connection of the caller's own, past a pooler if the URL says where."""
        return connect(self._place.listen or self._place.conninfo, self._place.timeout_s, self._where)

    def _connect(self) -> Session:
        return connect(self._place.conninfo, self._place.timeout_s, self._where)
