"""Channels whose events have types: what is published is checked and made JSON of by Pydantic.

The check stands at the publisher's line, before anything is stored. What rests in the log needs none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, overload

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from penstock.bus import Penstock as Bus
from penstock.core.channel import check_channel, refuse_own
from penstock.core.event import Event, to_text
from penstock.core.position import Position
from penstock.errors import BadChannel, ConfigError, InvalidEvent

T = TypeVar("T")

MESSAGE = "message"  # the event type of an event that has none
FAULTS_TOLD = 3  # of one event, so that the error stays short

_PLACE = re.compile(r"\{(\w*)\}")
_ANYTHING = TypeAdapter(Any)


class Channel(Generic[T]):
    """A channel, or many of a kind, whose events are checked. Made by ``Penstock.channel``.

    Args:
        bus: where its events go.
        name: the channel's, perhaps with places: ``room/{room}``.
        models: what the data of each event type is.

    Raises:
        BadChannel: for a name that cannot be one.
        ConfigError: for a model that Pydantic does not know, and if there is none.

    Attributes:
        models: what the data of each event type is; None is an event without a type.
    """

    def __init__(self, bus: Bus, name: str, models: Mapping[str, Any]) -> None:
        self._bus = bus
        self._template = _check_template(name)
        if not models:
            raise ConfigError(f"channel {name!r} has no models: say what its events are")
        self.models: dict[str | None, Any] = {}
        for event, model in models.items():
            Event("any", "", event)  # a type that no event can have is refused here
            self.models[_untold(event)] = model
        self._adapters = {event: _adapter(name, model) for event, model in self.models.items()}

    def __repr__(self) -> str:
        return f"<Channel {self._template}>"

    @property
    def name(self) -> str:
        """The channel's name.

        Raises:
            BadChannel: if it has places that are not filled yet.
        """
        if places := _PLACE.findall(self._template):
            values = ", ".join(f"{place}=…" for place in places)
            raise BadChannel(f"{self._template!r} stands for many channels: say which, .of({values})")
        return self._template

    def of(self, **values: object) -> Channel[T]:
        """One of the channels that ``room/{room}`` stands for: ``rooms.of(room=7)``.

        A value may come from a stranger: it is one segment of the name, and never a wildcard.

        Raises:
            BadChannel: for a value that cannot be a part of a name.
            ConfigError: for a place that there is not, or one that is not filled.
        """
        places = _PLACE.findall(self._template)
        if set(places) != values.keys():
            raise ConfigError(f"{self._template!r} has the places {places}, not {sorted(values)}")
        for value in values.values():
            if "/" in str(value) or not str(value):
                raise BadChannel(f"{str(value)!r:.80} is to be within one segment of a name, and something")
        name = _PLACE.sub(lambda place: str(values[place[1]]), self._template)
        one: Channel[T] = object.__new__(type(self))
        one.__dict__.update(self.__dict__, _template=refuse_own(check_channel(name)))
        return one

    def event(
        self,
        data: T | Mapping[str, Any],
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
    ) -> Event:
        """A checked event, for ``publish_many``. See ``publish``."""
        event = self._event_of(data) if event is None else _untold(event)
        if event not in self._adapters:
            raise InvalidEvent(f"{self} has no events {event or MESSAGE!r}; it has {self._told()}")
        return Event(self.name, self._json(self._adapters[event], data), event, retry, key)

    @overload
    def publish(
        self,
        data: T | Mapping[str, Any],
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: None = None,
    ) -> Position: ...
    @overload
    def publish(
        self,
        data: T | Mapping[str, Any],
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object,
    ) -> None: ...
    def publish(
        self,
        data: T | Mapping[str, Any],
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object = None,
    ) -> Position | None:
        """Check an event and publish it: returns once it rests in the log.

        Args:
            data: a model, or what can be made one: a ``dict``.
            event: the event type; that of the model, if it is not given.
            retry: see ``penstock.Penstock.publish``.
            key: likewise.
            connection: likewise.

        Raises:
            InvalidEvent: it is not what the channel's events are; nothing was stored.
            LogUnavailable, AppendUnsure, LogUnusable: see ``penstock.Penstock.publish``.
        """
        batch = [self.event(data, event=event, retry=retry, key=key)]
        if connection is not None:
            self._bus.publish_many(batch, connection=connection)
            return None
        return self._bus.publish_many(batch)[0]

    @overload
    async def apublish(
        self,
        data: T | Mapping[str, Any],
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: None = None,
    ) -> Position: ...
    @overload
    async def apublish(
        self,
        data: T | Mapping[str, Any],
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object,
    ) -> None: ...
    async def apublish(
        self,
        data: T | Mapping[str, Any],
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        connection: object = None,
    ) -> Position | None:
        """As ``publish``, for coroutines."""
        batch = [self.event(data, event=event, retry=retry, key=key)]
        if connection is not None:
            await self._bus.apublish_many(batch, connection=connection)
            return None
        return (await self._bus.apublish_many(batch))[0]

    def end(self) -> Position:
        """End the channel. See ``penstock.Penstock.end``."""
        return self._bus.end(self.name)

    async def aend(self) -> Position:
        """As ``end``, for coroutines."""
        return await self._bus.aend(self.name)

    def _event_of(self, data: object) -> str | None:
        """The event type of data that comes without."""
        if len(self.models) == 1:
            return next(iter(self.models))
        found = [event for event, model in self.models.items() if model is type(data)] or [
            event for event, model in self.models.items() if isinstance(model, type) and _is(data, model)
        ]
        if len(found) != 1:
            raise InvalidEvent(
                f"{self} has events {self._told()}: say which, event=…; it does not follow from "
                f"{type(data).__name__}"
            )
        return found[0]

    def _json(self, adapter: TypeAdapter[Any], data: object) -> str:
        try:
            valid = adapter.validate_python(data)
            # An error, not a warning: a model may have been changed since it was checked.
            return adapter.dump_json(valid, by_alias=True, warnings="error").decode()
        except ValidationError as error:
            raise InvalidEvent(f"no event of {self}: {_faults(error)}; it was not stored") from error
        except ValueError as error:  # of the serializer
            raise InvalidEvent(f"no event of {self}: {error}; it was not stored") from error

    def _told(self) -> str:
        return ", ".join(repr(event or MESSAGE) for event in self.models)


def as_data(data: Any) -> Any:
    """Data as the log takes it: what Pydantic can make JSON of becomes text.

    Raises:
        BadData: if it cannot.
    """
    return data if isinstance(data, str | bytes | bytearray | memoryview) else to_text(data, _dumps)


def _dumps(data: Any) -> str:
    if isinstance(data, BaseModel):
        return data.model_dump_json(by_alias=True)
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    return _ANYTHING.dump_python(value, mode="json", by_alias=True)


def _untold(event: str) -> str | None:
    """The event type as it is written: to an EventSource none is the same as ``message``."""
    return None if event == MESSAGE else event


def _check_template(name: str) -> str:
    if not isinstance(name, str):
        raise BadChannel(f"a channel is text, not {type(name).__name__}: {name!r:.80}")
    sample = _PLACE.sub("x", name)
    refuse_own(check_channel(sample))
    if "" in _PLACE.findall(name) or "{" in sample or "}" in sample:
        raise BadChannel(f"channel {name!r}: a place has a name, as in 'room/{{room}}'")
    return name


def _adapter(name: str, model: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(model)
    except PydanticUserError as error:
        raise ConfigError(f"channel {name!r}: Pydantic does not know the type {model!r}") from error


def _is(data: object, model: type) -> bool:
    try:
        return isinstance(data, model)
    except TypeError:  # list[int], say
        return False


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{'.'.join(map(str, fault['loc'])) or 'data'}: {fault['msg']}" for fault in faults]
    more = len(told) - FAULTS_TOLD
    return "; ".join(told[:FAULTS_TOLD]) + (f"; and {more} more" if more > 0 else "")
