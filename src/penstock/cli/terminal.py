"""How the command meets the world: signals, stdin, stdout, stderr, and amounts as people write them.

What was asked for goes to stdout, in UTF-8, each line at once; everything else goes to stderr. A signal ends
the command in order, and then as that signal ends any process, so shells and service managers see what
happened. That the reader of the output has gone is no error.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType

from penstock import Record
from penstock.errors import ConfigError, EventTooLarge

# What could steer a terminal, or part a line for some programs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class Stopped(BaseException):
    """Raised wherever the main thread is, when a signal asks the process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


class NobodyReads(BaseException):
    """Whoever read the output has gone: there is nothing more to do."""


def stop_on_signals() -> None:
    """Raise ``Stopped`` on Ctrl-C and SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background jobs ignore SIGINT
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # who asks twice does not want to wait
    raise Stopped(number)


def end_by_signal(stopped: Stopped) -> int:
    """End the process by the signal that stopped it. The exit code is for when that does not end it."""
    signal.signal(stopped.number, signal.SIG_DFL)
    os.kill(os.getpid(), stopped.number)
    return 128 + stopped.number  # the first process of a container outlives its own signal


def say(text: str) -> None:
    """Print a line of what was asked for.

    Raises:
        NobodyReads: if it cannot reach anybody any more.
    """
    if sys.stdout is None:  # closed before we began
        return
    try:
        # A file's name may hold bytes that are not UTF-8; everything else is text.
        sys.stdout.buffer.write(f"{text}\n".encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise NobodyReads from error


def complain(text: str) -> None:
    """Print a line about it, if anybody reads that."""
    with contextlib.suppress(OSError):
        print(f"penstock: {text}", file=sys.stderr, flush=True)


def when_nobody_reads(call: Callable[[], object]) -> None:
    """Call when the reader of stdout goes away; writing alone would tell with the next line only."""
    if sys.stdout is None or not hasattr(select, "poll"):
        return
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # no event is waited for but errors and hang-ups

    def watch() -> None:
        poll.poll()
        call()

    threading.Thread(target=watch, name="penstock-stdout", daemon=True).start()


def give_up_output() -> None:
    """Let the interpreter's last flush go nowhere, if what is left has no reader."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_stdin(limit: int) -> bytes:
    """All of stdin, less one newline at its end.

    Raises:
        EventTooLarge: if that is more than ``limit`` bytes; it may have no end.
    """
    with open(0, "rb", closefd=False) as stdin:
        data = re.sub(rb"\r?\n\Z", b"", stdin.read(limit + 3))
    if len(data) > limit:
        raise EventTooLarge(f"stdin has over {limit} bytes, the limit of an event; nothing was stored")
    return data


class Unit:
    """What an amount may be counted in.

    Args:
        what: what is counted, for messages.
        example: amounts as they may be written.
        worths: the worth of each unit, in small letters; of a bare number that of the empty one.
    """

    def __init__(self, what: str, example: str, worths: dict[str, int]) -> None:
        self._what = what
        self._example = example
        self._worths = worths

    def read(self, text: str) -> int | None:
        """The whole number that an amount amounts to; None for ``none``.

        Raises:
            ConfigError: if the text is no amount.
        """
        if text == "none":
            return None
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)", text.strip().lower(), re.ASCII)
        if found is None or found[2] not in self._worths:
            raise ConfigError(f"{text!r} is not {self._what}: write {self._example} or none")
        return int(float(found[1]) * self._worths[found[2]])


AGE = Unit("an age", "90s, 15m, 24h, 7d", {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800})
COUNT = Unit("a number of events", "5000, 20k, 1M", {"": 1, "k": 1000, "m": 1000**2})
SIZE = Unit(
    "a size",
    "65536, 500MB, 1GiB",
    {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4}
    | {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4},
)


def as_text(record: Record) -> str:
    """A record for people: time, channel, type, data; each further line of the data after a tab."""
    kind = "penstock.end" if record.end else record.event or "message"
    data = "\n\t".join(_printable(line) for line in re.split(r"\r\n|\r|\n", record.data))
    return f"{as_time(record.time)}\t{record.channel}\t{_printable(kind)}\t{data}"


def as_json(record: Record) -> str:
    """A record for programs: one line of JSON."""
    names = ("seq", "time", "channel", "event", "data", "retry", "key", "end")
    values = {"position": str(record.position)} | {name: getattr(record, name) for name in names}
    return _printable(json.dumps(values, ensure_ascii=False))  # what this escapes is inside strings


def as_time(seconds: float) -> str:
    """A time for people, the same everywhere: UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_size(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
