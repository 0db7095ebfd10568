"""Clients of ASGI apps (Starlette, FastAPI, any callable) for streams without an end: no server, no port.

``AsyncASGIClient`` runs the app on the loop of the test, for tests that are coroutines. ``ASGIClient`` runs
it on a loop of its own in a thread, for tests that are not.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from penstock.testing.asgi import ASGIApp, ASGICall, Server
from penstock.testing.client import TIMEOUT_S, Client, adrop_all, drop_all
from penstock.testing.exchange import Exchange
from penstock.testing.faults import StreamTimeout, note_on
from penstock.testing.lifespan import Lifespan
from penstock.testing.streams import AsyncEventStream, EventStream
from penstock.testing.whereabouts import of_thread

T = TypeVar("T")

SPEC_VERSION = "2.3"  # what uvicorn tells
_REAP_S = 5.0  # a loop that is not blocked ends sooner


class AsyncASGIClient(Client[AsyncEventStream]):
    """A client of an ASGI app, for tests that are coroutines on asyncio.

    In ``async with`` the app's lifespan is run around the block, and all streams are dropped before its end.

    Args:
        app: the app.
        spec_version: the version of ASGI that the app is told; see ``penstock.testing.asgi``.
        lifespan: whether ``async with`` starts the app up and shuts it down.
        strict: whether it is an error if the app calls ``receive`` from two places at once.
        timeout: how many seconds each wait takes at the most, where nothing else is said.

    Example:
        >>> async with AsyncASGIClient(app) as client, client.stream("/events") as stream:
        ...     await sse.apublish("chat", "hello")
        ...     assert (await stream.next_event()).data == "hello"
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        spec_version: str = SPEC_VERSION,
        lifespan: bool = True,
        strict: bool = True,
        timeout: float = TIMEOUT_S,
    ) -> None:
        super().__init__(self._begin, AsyncEventStream, timeout)
        self._server = Server(app, spec_version, strict)
        self._wants_lifespan = lifespan
        self._lifespan: Lifespan | None = None

    def _begin(self, exchange: Exchange) -> ASGICall:
        state = self._lifespan.state if self._lifespan is not None else None
        return ASGICall(self._server, exchange, state, asyncio.get_running_loop())

    async def aclose(self) -> None:
        """Drop all streams that are still open, and shut the app down if it was started up."""
        lifespan, self._lifespan = self._lifespan, None
        try:
            await adrop_all(self._streams)
        finally:
            if lifespan is not None:
                await lifespan.shutdown()

    async def __aenter__(self) -> Self:
        if self._wants_lifespan:
            lifespan = Lifespan(self._server.app, self._timeout_s)
            await lifespan.startup()
            self._lifespan = lifespan
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        except Exception as late:
            if not note_on(error, late):
                raise


class ASGIClient(Client[EventStream]):
    """A client of an ASGI app, for tests that are no coroutines.

    To be used in a ``with`` block, around which its loop and the app's lifespan run.

    Args:
        app: the app.
        spec_version: the version of ASGI that the app is told; see ``penstock.testing.asgi``.
        lifespan: whether the app is started up and shut down.
        strict: whether it is an error if the app calls ``receive`` from two places at once.
        timeout: how many seconds each wait takes at the most, where nothing else is said.

    Example:
        >>> with ASGIClient(app) as client, client.stream("/events") as stream:
        ...     sse.publish("chat", "hello")
        ...     assert stream.next_event().data == "hello"
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        spec_version: str = SPEC_VERSION,
        lifespan: bool = True,
        strict: bool = True,
        timeout: float = TIMEOUT_S,
    ) -> None:
        super().__init__(self._begin, EventStream, timeout)
        self._server = Server(app, spec_version, strict)
        self._wants_lifespan = lifespan
        self._lifespan: Lifespan | None = None
        self._loop: _LoopThread | None = None

    def _begin(self, exchange: Exchange) -> ASGICall:
        if self._loop is None:
            raise RuntimeError(
                "an ASGIClient runs the app within its block: 'with ASGIClient(app) as client:'"
            )
        state = self._lifespan.state if self._lifespan is not None else None
        return ASGICall(self._server, exchange, state, self._loop.loop)

    def close(self) -> None:
        """Drop all streams that are still open, shut the app down, and end its loop."""
        loop, self._loop = self._loop, None
        lifespan, self._lifespan = self._lifespan, None
        if loop is None:
            return
        with contextlib.ExitStack() as stack:
            stack.callback(loop.end)
            if lifespan is not None:
                stack.callback(lambda: loop.run(lifespan.shutdown(), self._timeout_s))
            drop_all(self._streams)

    def __enter__(self) -> Self:
        loop = self._loop = _LoopThread()
        if self._wants_lifespan:
            lifespan = Lifespan(self._server.app, self._timeout_s)
            try:
                loop.run(lifespan.startup(), self._timeout_s)
            except BaseException as error:
                try:
                    self.close()
                except Exception as late:
                    note_on(error, late)
                raise
            self._lifespan = lifespan
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception as late:
            if not note_on(error, late):
                raise


class _LoopThread:
    """An event loop in a thread of its own, from the moment this is made."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main()), name="ASGIClient", daemon=True
        )
        self._thread.start()
        self._ready.wait()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ready.set()
        await self._stop.wait()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run a coroutine there. It keeps to the time-out itself, unless the loop is blocked."""
        running = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return running.result(2 * timeout_s + _REAP_S)
        except concurrent.futures.TimeoutError:
            if running.done():
                raise  # its own
            raise self._blocked() from None

    def end(self) -> None:
        """End the loop; what is left on it is cancelled."""
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_REAP_S)
        if self._thread.is_alive():
            raise self._blocked()

    def _blocked(self) -> StreamTimeout:
        return StreamTimeout(f"the app blocks its event loop, which cannot end{of_thread(self._thread)}")
