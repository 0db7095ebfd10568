"""What users may rely on, by name. A change here is a change of the public API."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
import penstock.django
import penstock.fastapi
import penstock.flask
import penstock.quart
import penstock.starlette
import penstock.testing
from penstock import Gap, Options, Position, Record, Stats
from penstock.subscriber import Subscriber

STREAM = "(self, *channels, last=None, after=None, user=None, until=None, on_close=None)"
STREAM_OF_ASGI = STREAM[:-1] + ", headers=None, background=None)"
PUBLISH = "(self, channel, data, *, event=None, retry=None, key=None, connection=None)"
ENDPOINT = "(self, authorize=None, *, last=None, after=None, user=None, until=None)"
PUBLIC = [
    "AppendUnsure", "Event", "Gap", "GapError", "GapReason", "LogUnavailable", "Options", "Penstock",
    "PenstockError", "Position", "Record", "Stats", "StreamInfo", "errors",
]  # fmt: skip


def names_of(thing: object) -> list[str]:
    return sorted(name for name in dir(thing) if not name.startswith("_"))


def parameters_of(function: Any) -> str:
    """The parameters, without their types; ``*`` before those by keyword only."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(bare))


def test_the_names_of_the_package() -> None:
    assert penstock.__all__ == PUBLIC == sorted(penstock.__all__)
    assert all(hasattr(penstock, name) for name in PUBLIC)
    assert penstock.__version__.count(".") == 2


def test_the_names_of_penstock() -> None:
    assert names_of(penstock.Penstock) == [
        "aend", "akick", "apublish", "apublish_many", "asubscribe", "close", "drain", "end", "engine", "kick",
        "predicate", "publish", "publish_many", "stats", "subscribe",
    ]  # fmt: skip


def all_names_of(thing: object) -> list[str]:
    """Those that it has of its bases too."""
    return sorted(name for name in dir(thing) if not name.startswith("_"))


EXTENSION = [
    "bus", "drain", "end", "endpoint", "init_app", "kick", "predicate", "publish", "publish_many", "stats",
    "stream", "subscribe",
]  # fmt: skip
ASYNC = ["aend", "akick", "apublish", "apublish_many", "asubscribe"]


def test_the_names_of_the_extensions() -> None:
    assert penstock.flask.__all__ == ["Penstock"]
    assert penstock.quart.__all__ == ["Penstock", "StreamResponse"]
    assert all_names_of(penstock.flask.Penstock) == EXTENSION
    assert all_names_of(penstock.quart.Penstock) == sorted([*EXTENSION, *ASYNC])


def test_the_names_of_the_asgi_faces() -> None:
    plain = all_names_of(penstock.Penstock)
    assert penstock.starlette.__all__ == ["Penstock", "StreamResponse"]
    assert penstock.fastapi.__all__ == ["Channel", "Penstock", "StreamResponse"]
    starlette = sorted([*plain, "bypass", "endpoint", "lifespan", "stream"])
    assert all_names_of(penstock.starlette.Penstock) == starlette
    assert all_names_of(penstock.fastapi.Penstock) == sorted([*starlette, "channel", "documented"])
    assert all_names_of(penstock.fastapi.Channel) == [
        "aend",
        "apublish",
        "end",
        "event",
        "name",
        "of",
        "publish",
    ]


def test_the_names_of_the_django_app() -> None:
    assert penstock.django.__all__ == [
        "aend", "akick", "apublish", "apublish_many", "astream", "asubscribe", "drain", "end", "get_bus",
        "kick", "predicate", "publish", "publish_many", "stats", "stream", "subscribe",
        "views",
    ]  # fmt: skip


def test_the_names_for_tests() -> None:
    assert penstock.testing.__all__ == [
        "LOG_CHECKS", "ASGIClient", "AsyncASGIClient", "AsyncEventStream", "Check", "EventStream", "Fresh",
        "Opener", "ProtocolFault", "ReceivedEvent", "StreamOver", "StreamTimeout", "WSGIClient", "check_log",
    ]  # fmt: skip
    waits = ["drop", "events", "next_event", "reconnect", "wait_closed"]
    shows = ["body", "closed", "headers", "last_event_id", "retry_ms", "status"]
    for stream in (penstock.testing.EventStream, penstock.testing.AsyncEventStream):
        assert sorted(name for name in dir(stream) if not name.startswith("_")) == sorted(waits + shows)
    for client, close in (
        (penstock.testing.WSGIClient, "close"),
        (penstock.testing.ASGIClient, "close"),
        (penstock.testing.AsyncASGIClient, "aclose"),
    ):
        assert [name for name in dir(client) if not name.startswith("_")] == [close, "stream"]


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (penstock.Penstock.publish, PUBLISH),
        (penstock.Penstock.apublish, PUBLISH),
        (
            penstock.flask.Penstock.publish,
            "(self, channel, data, *, event=None, retry=None, key=None, connection=None)",
        ),
        (penstock.Penstock.publish_many, "(self, events, *, connection=None)"),
        (penstock.Penstock.apublish_many, "(self, events, *, connection=None)"),
        (penstock.flask.Penstock.publish_many, "(self, events, *, connection=None)"),
        (penstock.Penstock.subscribe, "(self, *channels, after=None, last=None, on_gap=None)"),
        (penstock.Penstock.asubscribe, "(self, *channels, after=None, last=None, on_gap=None)"),
        (penstock.flask.Penstock.stream, STREAM),
        (penstock.flask.Penstock.endpoint, ENDPOINT),
        (penstock.Penstock.kick, "(self, who, *arguments)"),
        (penstock.Penstock.akick, "(self, who, *arguments)"),
        (penstock.flask.Penstock.kick, "(self, who, *arguments)"),
        (penstock.Penstock.predicate, "(self, function)"),
        (penstock.quart.Penstock.stream, STREAM),
        (penstock.quart.Penstock.endpoint, ENDPOINT),
        (penstock.starlette.Penstock.stream, STREAM_OF_ASGI),
        (penstock.fastapi.Penstock.stream, STREAM_OF_ASGI),
        (penstock.starlette.Penstock.endpoint, ENDPOINT),
        (penstock.starlette.Penstock.bypass, "(self, app, path, endpoint)"),
        (penstock.starlette.Penstock, "(log='sqlite:///penstock.db', **options)"),
        (
            penstock.fastapi.Penstock.publish,
            "(self, channel, data, *, event=None, retry=None, key=None, connection=None)",
        ),
        (penstock.fastapi.Penstock.channel, "(self, name, model=None, /, **models)"),
        (penstock.fastapi.Penstock.documented, "(self, *channels, responses=None)"),
        (
            penstock.fastapi.Channel.publish,
            "(self, data, *, event=None, retry=None, key=None, connection=None)",
        ),
        (penstock.django.stream, STREAM.replace("self", "request")),
        (penstock.django.astream, STREAM.replace("self", "request")),
        (
            penstock.django.publish,
            "(channel, data, *, event=None, retry=None, key=None, on_commit=True, using=None, "
            "connection=None)",
        ),
        (penstock.Penstock.end, "(self, channel)"),
        (penstock.Penstock.aend, "(self, channel)"),
        (penstock.flask.Penstock.end, "(self, channel)"),
        (penstock.Penstock.drain, "(self, timeout=1.0)"),
        (penstock.flask.Penstock.drain, "(self, timeout=1.0)"),
        (penstock.Penstock, "(log, **options)"),
        (penstock.flask.Penstock, "(app=None)"),
        (penstock.Event, "(channel, data, event=None, retry=None, key=None, end=False)"),
        (penstock.Position, "(epoch, seq)"),
        (penstock.testing.WSGIClient, "(app, *, timeout=10.0)"),
        (
            penstock.testing.ASGIClient,
            "(app, *, spec_version='2.3', lifespan=True, strict=True, timeout=10.0)",
        ),
        (
            penstock.testing.AsyncASGIClient,
            "(app, *, spec_version='2.3', lifespan=True, strict=True, timeout=10.0)",
        ),
        (
            penstock.testing.WSGIClient.stream,
            "(self, path, *, query=None, headers=None, cookies=None, method='GET', body=b'', "
            "last_event_id='', extra=None, raw=False, wait_open=True)",
        ),
        (penstock.testing.EventStream.next_event, "(self, timeout=None)"),
        (penstock.testing.EventStream.events, "(self, count, timeout=None)"),
        (penstock.testing.EventStream.drop, "(self, timeout=None)"),
        (penstock.testing.EventStream.wait_closed, "(self, timeout=None)"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_parameters(function: Any, parameters: str) -> None:
    assert parameters_of(function) == parameters


def test_the_fields_of_values() -> None:
    def fields(kind: Any) -> list[str]:
        return [field.name for field in dataclasses.fields(kind)]

    assert fields(Options) == [
        "keep_alive", "retry", "publish_timeout", "max_event_bytes", "max_streams",
        "max_streams_per_client", "overflow", "cors_origins", "stream_lifetime", "ring_events", "ring_bytes",
        "max_age", "max_events", "max_bytes",
    ]  # fmt: skip
    assert fields(Stats) == [
        "log_url", "log_state", "streams", "audiences", "lagging", "polls", "published", "delivered",
        "bytes", "gaps", "ring_events", "ring_bytes", "tail_seq", "tail_lag", "draining",
    ]  # fmt: skip
    assert fields(penstock.StreamInfo) == ["user", "channels", "until"]
    assert fields(Gap) == ["reason", "after", "resumes"]
    assert fields(Position) == ["epoch", "seq"]
    assert fields(penstock.Event) == ["channel", "data", "event", "retry", "key", "end"]
    assert Record._fields == (
        "epoch", "seq", "time", "channel", "data", "event", "retry", "key", "end",
    )  # fmt: skip
    assert [reason.value for reason in penstock.GapReason] == ["expired", "epoch", "ahead", "malformed"]
    assert names_of(Subscriber) == ["close"]


def public_things() -> Iterator[tuple[str, Any]]:
    things = [getattr(penstock, name) for name in PUBLIC] + [penstock.flask.Penstock, Subscriber]
    things += [penstock.quart.Penstock, penstock.starlette.Penstock, penstock.fastapi.Penstock]
    things += [
        penstock.fastapi.Channel,
        *(getattr(penstock.django, name) for name in penstock.django.__all__),
    ]
    names = [name for name in penstock.testing.__all__ if name.isidentifier() and name[0].isupper()]
    things += [thing for name in names if inspect.isclass(thing := getattr(penstock.testing, name))]
    for thing in [*things, penstock, penstock.flask, penstock.testing, penstock.django, penstock.fastapi]:
        yield thing.__name__, thing
        if inspect.isclass(thing):
            for name, member in vars(thing).items():
                if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                    yield f"{thing.__name__}.{name}", member


@pytest.mark.parametrize("thing", [pytest.param(thing, id=name) for name, thing in public_things()])
def test_every_public_thing_has_a_docstring(thing: Any) -> None:
    doc = thing.__doc__ or ""
    assert len(doc.split()) >= 3
    assert doc.strip().split("\n\n")[0].endswith((".", ":")), "its first paragraph is a sentence"


def test_every_module_begins_with_its_theory() -> None:
    root = Path(penstock.__file__).parent
    modules = [path for path in root.rglob("*.py") if path.name != "__main__.py"]
    empty = [path for path in modules if path.name == "__init__.py" and not path.read_text().strip()]
    bare = [
        path for path in modules if path not in empty and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert len(modules) > 25
    assert bare == []


_LOOK = """
import json, sys, threading
before = set(sys.modules)
import penstock
after = {name.partition(".")[0] for name in set(sys.modules) - before}
bus = penstock.Penstock("sqlite:///never.db")
print(json.dumps({
    "foreign": sorted(after - set(sys.stdlib_module_names) - {"penstock"}),
    "sqlite3": "sqlite3" in after,
    "threads": threading.active_count(),
    "bus": repr(bus),
}))
"""


def test_nothing_happens_at_import(tmp_path: Any) -> None:
    looked = subprocess.run(
        [sys.executable, "-c", _LOOK], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told = json.loads(looked.stdout)
    assert told["foreign"] == [], "no module but those of Python"
    assert told["sqlite3"] is False, "no driver before it is used"
    assert told["threads"] == 1
    assert list(tmp_path.iterdir()) == [], "no file is made"
    assert looked.stderr == ""
