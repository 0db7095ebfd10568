"""Penstock for FastAPI: streams, channels whose events have Pydantic models, and what OpenAPI tells of them.

Example:
    ::

        sse = Penstock("sqlite:///penstock.db")
        app = FastAPI(lifespan=sse.lifespan)

        class Message(BaseModel):
            text: str

        chat = sse.channel("chat", Message)

        @app.get("/events", **sse.documented(chat))
        async def events():
            return sse.stream(chat, last=50)

        @app.post("/say", status_code=204)
        async def say(message: Message):
            await chat.apublish(message)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Self, TypeVar, overload

from penstock import starlette
from penstock.core.position import Position
from penstock.doors.ask import OnClose, Until, check_ask
from penstock.errors import MissingExtra

try:
    from starlette.background import BackgroundTask, BackgroundTasks
    from starlette.types import Receive, Scope, Send

    from penstock.fastapi.openapi import document
    from penstock.fastapi.typed import MESSAGE, Channel, as_data
except ImportError as error:
    raise MissingExtra("FastAPI and Pydantic 2 are not installed: pip install 'penstock[fastapi]'") from error

__all__ = ["Channel", "Penstock", "StreamResponse"]

T = TypeVar("T")

_DEPENDENCIES = "fastapi_inner_astack"  # where FastAPI, from 0.118 on, keeps those that are not over


class Penstock(starlette.Penstock):
    """``penstock.Penstock`` with streams for FastAPI.

    It is a dependency too: ``Annotated[Penstock, Depends(sse)]`` is itself, unless
    ``app.dependency_overrides[sse]`` says otherwise.

    Args:
        log: a URL, or a callable that makes a log; a file beside the app by default.
        options: see ``penstock.Options``.

    Raises:
        ConfigError: for a URL or an option that cannot work.
    """

    async def __call__(self) -> Self:
        """Give itself: what FastAPI asks of a dependency."""
        return self

    @overload
    def channel(self, name: str, model: type[T], /) -> Channel[T]: ...
    @overload
    def channel(self, name: str, model: Any = None, /, **models: Any) -> Channel[Any]: ...
    def channel(self, name: str, model: Any = None, /, **models: Any) -> Channel[Any]:
        """A channel whose events are checked against Pydantic models when they are published.

        Args:
            name: the channel, as ``chat``, or many of a kind, as ``room/{room}``.
            model: what the data of an event without a type is: a model, or anything else that Pydantic
                knows. Or a mapping of event types to such.
            models: what the data of each event type is.

        Raises:
            BadChannel: for a name that cannot be one.
            ConfigError: for a model that Pydantic does not know, and if there is none.

        Example:
            ::

                chat = sse.channel("chat", Message)
                rooms = sse.channel("room/{room}", said=Message, joined=Joined)
        """
        given = model if isinstance(model, Mapping) else {} if model is None else {MESSAGE: model}
        return Channel(self, name, {**given, **models})

    @overload
    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: None = None,
    ) -> Position: ...
    @overload
    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object,
    ) -> None: ...
    def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object = None,
    ) -> Position | None:
        """Publish an event: returns once it rests in the log. See ``penstock.Penstock.publish``.

        Data may be Pydantic models or have such within, and whatever else Pydantic can make JSON of: times,
        UUIDs, dataclasses. It blocks: for ``def``; in ``async def`` await ``apublish``.
        """
        return super().publish(
            channel, as_data(data), event=event, retry=retry, key=key, connection=connection
        )

    @overload
    async def apublish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: None = None,
    ) -> Position: ...
    @overload
    async def apublish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object,
    ) -> None: ...
    async def apublish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object = None,
    ) -> Position | None:
        """As ``publish``, for coroutines."""
        if connection is None:
            return await super().apublish(channel, as_data(data), event=event, retry=retry, key=key)
        await super().apublish(
            channel, as_data(data), event=event, retry=retry, key=key, connection=connection
        )
        return None

    def stream(
        self,
        *channels: str | Channel[Any],
        last: int | None = None,
        after: Position | str | None = None,
        user: str | int | None = None,
        until: Until | None = None,
        on_close: OnClose | None = None,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> StreamResponse:
        """Answer a request with a stream: to be returned by a path operation, ``def`` or ``async def``.

        A client that comes back gets what it missed since its ``Last-Event-ID`` (or ``?last_event_id=``,
        for clients that cannot set headers), and then what comes. Whoever may call the path operation may
        read the channels: let its dependencies decide, and do not pass on names that the client chose.

        Dependencies with ``yield`` are over when the stream begins, with every server and every release of
        FastAPI, so no stream holds a database's connection. (If the path operation has background tasks,
        they are over after these.)

        Args:
            channels: channels and patterns (``room/*``), and what ``channel`` has made.
            last: begin with the last so many events, for a client that comes for the first time.
            after: begin after this position, or with the ``earliest`` event, likewise.
            user: whose stream it is, so that ``kick`` finds it: a name or a primary key.
            until: when the right to read it ends: a ``datetime`` with a time zone, or seconds since 1970, as
                the ``exp`` of a token. The client is told (``penstock.revoked``) and comes back.
            on_close: called once, in a thread, when the client has gone or the stream has ended, on every
                server; at once if there was none to be opened.
            headers: more headers of the response. Cookies may be set on it too.
            background: runs when the server has done its part, which on some is when the stream begins.

        Returns:
            A response; ``204`` if all channels have ended and the client has had the end, which tells an
            EventSource not to come back.

        Raises:
            BadChannel, MalformedPosition, ConfigError: for arguments that cannot work.
        """
        names = [each.name if isinstance(each, Channel) else each for each in channels]
        ask = check_ask(names, last=last, after=after, user=user, until=until, on_close=on_close)
        return StreamResponse(self._door, ask, headers, background)

    def documented(
        self, *channels: Channel[Any], responses: Mapping[Any, Mapping[str, Any]] | None = None
    ) -> dict[str, Any]:
        """What a path operation says of its stream in OpenAPI, as FastAPI does of its own event streams.

        Args:
            channels: those that it streams; their models become schemas of the app.
            responses: more responses, and others in the place of these (``200``, ``204``, ``403``, ``503``).

        Returns:
            Arguments of the path operation: ``@app.get("/events", **sse.documented(chat))``.
        """
        return document([pair for channel in channels for pair in channel.models.items()], responses or {})


class StreamResponse(starlette.StreamResponse):
    """A response that the door answers; its headers and cookies go out with the stream's."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        dependencies = scope.get(_DEPENDENCIES)
        if isinstance(dependencies, AsyncExitStack) and not _has_tasks(self.background):
            await dependencies.aclose()  # else they would last as long as a stream that is a task
        await super().__call__(scope, receive, send)


def _has_tasks(background: BackgroundTask | None) -> bool:
    """Whether something is to be done afterwards, which may use what the dependencies gave."""
    return bool(background.tasks) if isinstance(background, BackgroundTasks) else background is not None
