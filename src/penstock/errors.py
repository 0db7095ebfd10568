"""Every error that Penstock raises, in one tree.

Each message says what happened, what was kept, and what to do. Errors of drivers and of the operating
system are translated where they arise and hang on ``__cause__``.

::

    PenstockError
    ├── ConfigError (ValueError)            a URL or an option that cannot work
    │   └── MissingExtra (ImportError)      an optional dependency is not installed
    ├── InvalidEvent (ValueError)           refused when it was made; nothing was stored
    │   ├── BadChannel                      a channel or pattern that breaks the naming rules
    │   ├── BadData                         data that is neither text nor JSON
    │   └── EventTooLarge                   over the limit of the size of an event
    ├── MalformedPosition (ValueError)      text that is not ``epoch:seq``
    ├── LogError
    │   ├── LogUnavailable                  NOT stored: the log is away for now; trying again may help
    │   │   └── LogFull                     NOT stored: no room, on the disk or in memory
    │   ├── AppendUnsure                    stored or not: unknown; publish again with a ``key``
    │   └── LogUnusable                     will not mend by waiting; it is left as it is
    │       ├── NotALog                     something else is under its name
    │       ├── SchemaTooNew                written by a newer Penstock
    │       ├── LogCorrupt                  damaged
    │       └── LogDenied                   not readable or not writable by this user
    ├── GapError                            events between a position and the log are gone
    ├── StreamRefused                       no room for another stream
    ├── Closed (RuntimeError)               used after ``close()``
    └── WouldBlock (RuntimeError)           a blocking call on the engine's own event loop
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.core.position import Gap


class PenstockError(Exception):
    """The root of all errors of Penstock."""


class ConfigError(PenstockError, ValueError):
    """A URL or an option that cannot work. Nothing was opened."""


class MissingExtra(ConfigError, ImportError):
    """An optional dependency is not installed; the message names the ``pip install``."""


class InvalidEvent(PenstockError, ValueError):
    """An event that must not be stored. Nothing was stored."""


class BadChannel(InvalidEvent):
    """A channel or pattern that breaks the naming rules."""


class BadData(InvalidEvent):
    """Data that is neither text nor JSON; the message says where in the data."""


class EventTooLarge(InvalidEvent):
    """An event over the limit ``max_event_bytes``."""


class MalformedPosition(PenstockError, ValueError):
    """Text that is not a position ``epoch:seq``."""


class LogError(PenstockError):
    """The log did not do what was asked."""


class LogUnavailable(LogError):
    """The log is away for now. What was to be stored is not stored; trying again may help."""


class LogFull(LogUnavailable):
    """There is no room to store. What was to be stored is not stored; what was stored is kept."""


class AppendUnsure(LogError):
    """Whether the events were stored is unknown.

    Publish again with a ``key``: the same key is stored once.
    """


class LogUnusable(LogError):
    """The log cannot be used as it is, and waiting will not mend it. It is left untouched."""


class NotALog(LogUnusable):
    """What is there under the log's name is no Penstock log."""


class SchemaTooNew(LogUnusable):
    """The log was written by a newer Penstock than this one."""


class LogCorrupt(LogUnusable):
    """The log is damaged. It is never overwritten."""


class LogDenied(LogUnusable):
    """The log, or the folder it lies in, may not be read or written by this user."""


class GapError(PenstockError):
    """Events that a subscriber should have had are gone.

    Attributes:
        gap: what is missing, and where the subscription can go on (``gap.resumes``).
    """

    def __init__(self, gap: Gap) -> None:
        self.gap = gap
        super().__init__(
            f"events after {gap.after or 'the given position'} are missing ({gap.reason}: "
            f"{gap.reason.meaning}); what the log still has follows {gap.resumes}: "
            f"subscribe again with after={str(gap.resumes)!r}, or pass on_gap= to go on by itself"
        )


class StreamRefused(PenstockError):
    """There is no room for another stream in this process."""


class Closed(PenstockError, RuntimeError):
    """Used after ``close()``."""


class WouldBlock(PenstockError, RuntimeError):
    """A blocking call on the engine's own event loop, which would stop every stream."""
