"""Connections to the server that may be written to: made when they are needed, kept while they are sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import RedisError

from penstock import threads
from penstock.errors import Closed
from penstock.log.redis.errors import is_passing
from penstock.log.redis.line import Line

T = TypeVar("T")

MAX_IDLE = 4  # who reads, writes, trims and follows at once; more are made, and not kept


class Lines:
    """The connections of a log. Any thread may use it.

    Args:
        make: connects to the server that may be written to.
        url: of the log, for messages.
    """

    def __init__(self, make: Callable[[], Line], url: str) -> None:
        self.closed = False
        self._make = make
        self._url = url
        self._mutex = threads.Lock()  # guards all that follows
        self._idle: list[Line] = []
        self._age = 0  # goes up when all lines that are open are given up

    def use(self, work: Callable[[Line], T]) -> T:
        """Do something with a line, which is for this alone. It is kept if it is not spoilt by an error."""
        line, age = self._take()
        sound = False
        try:
            result = work(line)
            sound = True
            return result
        except RedisError as error:
            sound = is_passing(error)
            raise
        finally:
            self._put_back(line, age, sound)

    def give_up(self) -> None:
        """Keep none of the lines that are open: they lead to a server that went, or is not the one."""
        with self._mutex:
            self._age += 1
            idle, self._idle = self._idle, []
        for line in idle:
            line.close()

    def close(self) -> None:
        """Let go of all; those at work are closed when they are done."""
        self.closed = True
        self.give_up()

    def _take(self) -> tuple[Line, int]:
        while True:
            with self._mutex:
                self._check_open()
                line, age = self._idle.pop() if self._idle else None, self._age
            if line is None:
                return self._make(), age
            if line.is_quiet():
                return line, age
            line.close()

    def _put_back(self, line: Line, age: int, sound: bool) -> None:
        with self._mutex:
            kept = sound and not self.closed and age == self._age and len(self._idle) < MAX_IDLE
            if kept:
                self._idle.append(line)
        if not kept:
            line.close()

    def _check_open(self) -> None:
        if self.closed:
            raise Closed(f"the log {self._url} is closed")
