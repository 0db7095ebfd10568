"""The loop that makes the connections to NATS: of sockets that gevent has not patched, kept from children.

Nothing here waits for a hub.
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import os
import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

from penstock import threads
from penstock.loops import UnpatchedLoop

# What is written is handed on at once: a publish that waited in a buffer might leave after it was given up.
_WRITE_BUFFER_BYTES = 256 * 1024 * 1024


class Loop(UnpatchedLoop):
    """A loop whose sockets are unpatched.

    Attributes:
        transport: the one that was made last.
        must_be_secured: whether nothing may be sent before TLS is begun.
        secured: whether it is.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.must_be_secured = False
        self.secured = False
        super().__init__()

    async def create_connection(  # type: ignore[override]
        self, factory: Any, host: Any = None, port: Any = None, **more: Any
    ) -> Any:
        """As asyncio's, for a host and a port."""
        self.transport, self.secured = None, False
        error: OSError | None = None
        for family, kind, protocol, _, address in await self._addresses(host, port):
            sock = threads.Socket(family, kind, protocol)
            sock.setblocking(False)
            try:
                await self.sock_connect(sock, address)
            except OSError as failed:
                error = failed
                sock.close()
                continue
            except BaseException:
                sock.close()
                raise
            _protect(sock)
            transport, client = await super().create_connection(factory, sock=sock, **more)
            transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
            if self.must_be_secured:
                transport.write = self._guarded(transport.write)  # type: ignore[method-assign,assignment]
            self.transport = transport
            return transport, client
        raise error or OSError(f"{host} has no address")

    async def start_tls(self, *args: Any, **more: Any) -> Any:
        """As asyncio's."""
        self.secured = True
        return await super().start_tls(*args, **more)

    def _guarded(self, write: Callable[[Any], None]) -> Callable[[Any], None]:
        def write_if_secured(data: Any) -> None:
            if not self.secured:
                raise ssl.SSLError("the server has no TLS, which tls=yes demands: nothing was said to it")
            write(data)

        return write_if_secured

    async def _addresses(self, host: str, port: int) -> list[Any]:
        """Numbers are no question; a name is asked for in a thread, for that may take its time."""

        def ask(flags: int = 0) -> list[Any]:
            return _socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags)

        with contextlib.suppress(OSError):
            return ask(socket.AI_NUMERICHOST)
        pool = threads.Pool(1, "penstock-nats-name")
        try:
            return await pool.submit_for(self, ask)
        finally:
            pool.close()


# Forks

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_registered = False


def _protect(sock: socket.socket) -> None:
    """Let no child of this process close, shut down or write to its connection."""
    global _registered
    _sockets.add(sock)
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """In a child: whatever destructors do to the parent's sockets, they do to nothing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for sock in list(_sockets):
        if sock.fileno() >= 0:
            os.dup2(nothing, sock.fileno(), inheritable=False)
    os.close(nothing)
    _sockets.clear()
