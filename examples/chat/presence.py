"""Who is here, told through the log itself.

Each process publishes its *roll*: the names that have a stream open on it. A page shows the names of all
rolls together. A roll is published when it changes, so a quiet room writes nothing, and what comes together
is told together: when a hundred pages come back after a restart, that is a few rolls, not a hundred.

A process that is killed cannot take its roll back. So a roll may also be a *call*: when a process starts and
when a page is opened, all other processes are asked for theirs. A page believes a roll that is not confirmed
after a call no longer: it shows its names as reconnecting, and drops them 20 s later (``static/people.js``).
What is left: a worker that dies while another lives on, and that is not replaced, leaves the names of those
who never came back on show until somebody opens the page. A pulse every few seconds would mend that too, but
it would write to the log all night, and push the messages out of the history that a new page gets.
"""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from penstock import Gap, Record, errors

GATHER_S = 0.3  # what changes within this time is one roll; a page that is loaded again changes nothing
RETRY_S = 2.0  # the pause before telling again, while the log is away


class Penstock(Protocol):
    """What is needed of it, the same in every framework."""

    def publish(self, channel: str, data: Any, *, event: str | None = None) -> object: ...
    def subscribe(self, channel: str, /, *, on_gap: Callable[[Gap], None]) -> Iterable[Record]: ...


class People:
    """The names that have a stream open on this process."""

    def __init__(self, sse: Penstock) -> None:
        self._sse = sse
        self._lock = threading.Lock()
        self._process = ""  # named at the first use: every forked worker has its own name
        self._here: Counter[str] = Counter()  # name → open streams: a person may have several tabs
        self._told: list[str] = []
        self._call = self._answer = False
        self._timer: threading.Timer | None = None

    def enter(self, user: str, *, is_new: bool) -> None:
        with self._lock:
            if not self._process:
                self._process, is_new = secrets.token_hex(4), True
                threading.Thread(target=self._answer_calls, daemon=True).start()
            self._here[user] += 1
            self._call |= is_new
            self._tell_in(GATHER_S)

    def leave(self, user: str) -> None:
        with self._lock:
            self._here[user] -= 1
            self._here += Counter()  # drops the names that have no stream left
            self._tell_in(GATHER_S)

    def _tell_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = threading.Timer(seconds, self._tell)
            self._timer.daemon = True
            self._timer.start()

    def _tell(self) -> None:
        with self._lock:
            self._timer = None
            names, call, answer = sorted(self._here), self._call, self._answer
            self._call = self._answer = False
            if names == self._told and not call and not answer:
                return
            self._told = names
        roll = {"process": self._process, "names": names, "call": call, "at": time.time()}
        try:
            self._sse.publish("people", roll, event="presence")
        except errors.Closed:
            pass  # the process is going: the others' calls will find that out
        except errors.LogError:
            with self._lock:
                self._call, self._answer = self._call or call, True
                self._tell_in(RETRY_S)

    def _answer_calls(self) -> None:
        for record in self._sse.subscribe("people", on_gap=lambda gap: None):
            roll = record.json() if record.event == "presence" else {}
            if roll.get("call") and roll.get("process") != self._process:
                with self._lock:
                    self._answer = True
                    self._tell_in(GATHER_S)
