"""The lifespan of an ASGI app: what it starts before the first request, and ends after the last."""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.testing.asgi import ASGIApp, Message
from penstock.testing.faults import ProtocolFault, StreamTimeout
from penstock.testing.whereabouts import of_task


class Lifespan:
    """Startup and shutdown, both in one task, as servers do it.

    An app that knows no lifespan, and says so by raising before it receives anything or by returning, has
    none: that is no error.

    Args:
        app: the app.
        timeout_s: how long startup may take, and shutdown.

    Attributes:
        state: what the app leaves there for its requests.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self.state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._received = False
        self._task: asyncio.Task[object] | None = None

    async def startup(self) -> None:
        """Let the app start.

        Raises:
            StreamTimeout: if it does not in time.
            ProtocolFault: if it says that it failed, or says something else.
        """
        self._task = asyncio.create_task(self._run(), name="app: lifespan")
        try:
            await self._ask("startup")
        except BaseException:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=self._timeout_s)
            raise

    async def shutdown(self) -> None:
        """Let the app end, and wait for its end. Raises as ``startup`` does."""
        task = self._task
        if task is None:
            return
        try:
            if not task.done():
                await self._ask("shutdown")
                await asyncio.wait([task], timeout=self._timeout_s)
                if not task.done():
                    raise StreamTimeout(
                        f"the app's lifespan did not end in {self._timeout_s:g} s{of_task(task)}"
                    )
            self._raise_error(task)
        finally:
            self._task = None
            task.cancel()
            await asyncio.wait([task], timeout=self._timeout_s)

    async def _run(self) -> object:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        return await self._app(scope, self._receive, self._told.put)

    async def _receive(self) -> Message:
        self._received = True
        return await self._inbox.get()

    async def _ask(self, what: str) -> None:
        task = self._task
        assert task is not None
        self._inbox.put_nowait({"type": f"lifespan.{what}"})
        answer = asyncio.create_task(self._told.get())
        try:
            await asyncio.wait([task, answer], timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                self._judge(what, answer.result(), task)
            elif task.done():
                self._raise_error(task)
            else:
                raise StreamTimeout(
                    f"the app's {what} was not over within {self._timeout_s:g} s{of_task(task)}"
                )
        finally:
            answer.cancel()

    def _judge(self, what: str, answer: Message, task: asyncio.Task[object]) -> None:
        kind = answer.get("type")
        if kind == f"lifespan.{what}.failed":
            self._raise_error(task)
            raise ProtocolFault(f"the app's {what} failed: {answer.get('message') or 'it does not say why'}")
        if kind != f"lifespan.{what}.complete":
            raise ProtocolFault(f"ASGI: to 'lifespan.{what}' the app answered {kind!r}")

    def _raise_error(self, task: asyncio.Task[object]) -> None:
        if (
            self._received
            and task.done()
            and not task.cancelled()
            and (error := task.exception()) is not None
        ):
            error.add_note("raised by the app in its lifespan")
            raise error
