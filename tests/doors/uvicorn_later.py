"""uvicorn's protocol as a later release might have it, with something not where it is looked for."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from penstock.doors.uvicorn import H11PushProtocol, _Pushing


class _Renamed(H11Protocol):
    """Has its limit under another name when it is new."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = self.__dict__.pop("limit_concurrency")

    def connection_made(self, transport: Any) -> None:
        self.limit_concurrency = self._limit
        super().connection_made(transport)


class Renamed(_Pushing, _Renamed):
    pass


class Wrapped(H11PushProtocol):
    """Gives the app a ``send`` that is no method."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._offering = self.app
        self.app = self._run

    async def _run(self, scope: Any, receive: Any, send: Any) -> None:
        async def wrapped(message: Any) -> None:
            await send(message)

        await self._offering(scope, receive, wrapped)
