"""What a test is told when a stream does not do what it should: it has failed, so AssertionErrors."""

from __future__ import annotations


class StreamTimeout(AssertionError, TimeoutError):
    """Something did not happen in time; the message says what came so far, and where the app is."""


class StreamOver(AssertionError):
    """No event will come: the stream has ended, its client has left it, or it never was an event stream."""


class ProtocolFault(AssertionError):
    """The app broke a rule of WSGI or ASGI that servers rely on."""


def note_on(error: BaseException | None, late: Exception) -> bool:
    """At the end of a ``with`` block: note what failed there on what had failed before, if anything had."""
    if error is None:
        return False
    error.add_note(f"and then, at the end of the 'with' block: {late!r}")
    return True
