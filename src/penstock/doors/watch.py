"""Notices at once that a client left, and can cut one off that does not read.

A thread that waits for events does not see its client go, and one that waits in a write does not see its
stream close. It watches a duplicate of the socket, so that a number that the server has closed and given
to another connection is never watched by mistake.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from penstock import threads
from penstock.core.stream import Closing
from penstock.engine.patience import Patience
from penstock.engine.pull import Pull


class Watch:
    """Watches the client of one stream, until ``end``.

    Args:
        loop: the engine's.
        patience: with clients that take nothing.
        pull: the stream that is closed when its client leaves, and may cut it off.
        shown: the client's socket, None where the server does not show it: then only a write will tell.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None,
        patience: Patience,
        pull: Pull,
        shown: socket.socket | None,
    ) -> None:
        self._loop = loop
        self._patience = patience
        self._pull = pull
        self._copy: socket.socket | None = None
        if shown is not None and self._loop is not None and hasattr(socket, "MSG_DONTWAIT"):
            try:
                self._copy = threads.Socket(fileno=os.dup(shown.fileno()))
                self._loop.call_soon_threadsafe(self._begin)
                pull.cut = self._cut
            except (OSError, RuntimeError):
                self._close()

    def end(self) -> None:
        """Let the socket go. The stream is over."""
        if self._copy is not None and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._close)
            except RuntimeError:
                self._close()

    def _begin(self) -> None:
        if self._copy is not None and self._loop is not None:
            self._loop.add_reader(self._copy, self._look)
            self._patience.look_after(self._copy.fileno())

    def _look(self) -> None:
        assert self._copy is not None
        try:
            gone = not self._copy.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._pull.close(Closing.LEFT)
        # Else it sent something: a next request, or the end of TLS. Only a write will tell now.
        if self._loop is not None:
            self._loop.remove_reader(self._copy)

    def _cut(self) -> None:
        """Wake the stream's thread from a write that nobody reads."""
        if self._copy is not None:
            with contextlib.suppress(OSError):
                self._copy.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        if self._copy is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._copy)
                self._patience.forget(self._copy.fileno())
            self._copy.close()
            self._copy = None
