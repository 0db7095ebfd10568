"""How the extension is set up, and what it says when it is set up wrongly. In this process."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from penstock import Event, Options
from penstock.core.parser import Message, Parser
from penstock.errors import BadData, ConfigError
from penstock.flask import Penstock


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Made:
    """An app with the extension, closed by the end of the test."""

    def __init__(self, sse: Penstock | None = None, **config: Any) -> None:
        self.app = Flask(__name__)
        self.app.config.update(config)
        self.sse = Penstock(self.app) if sse is None else sse
        if sse is not None:
            sse.init_app(self.app)
        self.app.add_url_rule("/events", view_func=lambda: self.sse.stream("chat", last=100))
        self.app.add_url_rule("/say/<text>", view_func=self.say)

    def say(self, text: str) -> str:
        return str(self.sse.publish("chat", text))

    def events(self, path: str = "/events") -> list[Message]:
        """What a stream brings; the test client has one thread, so the answer is bounded."""
        return read(self.app.test_client(), path)


def read(client: Any, path: str) -> list[Message]:
    answer = client.get(path)
    assert answer.status_code == 200
    return [each for each in Parser().feed(answer.data) if not each.event.startswith("penstock.")]


def texts(messages: list[Message]) -> list[str]:
    return [message.data for message in messages]


@pytest.fixture
def make() -> Iterator[type[Made]]:
    made: list[Made] = []

    class Kept(Made):
        def __init__(self, *args: Any, **config: Any) -> None:
            super().__init__(*args, **config)
            made.append(self)

    yield Kept
    for each in made:
        each.app.extensions["penstock"].bus.close()


def test_an_app_may_be_given_at_once(make: type[Made], tmp_path: Path) -> None:
    made = make()
    made.sse.publish("chat", "hi")
    assert texts(made.events()) == ["hi"]
    assert (tmp_path / "penstock.db").exists()


def test_an_app_may_be_given_later(make: type[Made]) -> None:
    made = make(Penstock())
    made.sse.publish("chat", "hi")
    assert texts(made.events()) == ["hi"]


def test_nothing_is_opened_or_started_before_the_first_use(make: type[Made], tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    made = make()
    assert made.app.test_client().get("/nowhere").status_code == 404
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) <= threads


def test_publishing_needs_no_request(make: type[Made]) -> None:
    made = make(PENSTOCK_URL="memory:")
    thread = threading.Thread(target=made.sse.publish, args=("chat", "from a thread"))
    thread.start()
    thread.join()
    assert texts(made.events()) == ["from a thread"]


def test_several_apps_have_logs_of_their_own(make: type[Made]) -> None:
    sse = Penstock()
    one = make(sse, PENSTOCK_URL="sqlite:///one.db")
    two = make(sse, PENSTOCK_URL="sqlite:///two.db")
    both = Client(DispatcherMiddleware(one.app, {"/two": two.app}))
    assert both.get("/say/first").status_code == 200
    assert both.get("/two/say/second").status_code == 200
    assert texts(read(both, "/events")) == ["first"]
    assert texts(read(both, "/two/events")) == ["second"]
    with two.app.app_context():
        sse.publish("chat", "third")
    assert texts(read(both, "/two/events")) == ["second", "third"]


def test_with_several_apps_publishing_says_which_is_missing(make: type[Made]) -> None:
    sse = Penstock()
    make(sse, PENSTOCK_URL="memory:")
    make(sse, PENSTOCK_URL="memory:")
    with pytest.raises(RuntimeError, match=r"several apps: say which, 'with app\.app_context\(\):'"):
        sse.publish("chat", "hi")


def test_two_extensions_may_serve_two_apps(make: type[Made]) -> None:
    one, two = make(PENSTOCK_URL="memory:"), make(PENSTOCK_URL="memory:")
    one.sse.publish("chat", "first")
    two.sse.publish("chat", "second")
    assert texts(one.events()) == ["first"]
    assert texts(two.events()) == ["second"]


def test_an_app_is_initialised_once(make: type[Made]) -> None:
    made = make(PENSTOCK_URL="memory:")
    with pytest.raises(ConfigError, match=r"was initialised for .* already"):
        Penstock(made.app)


def test_an_app_without_the_extension_is_told_what_to_call(make: type[Made]) -> None:
    with pytest.raises(RuntimeError, match=r"call init_app\(app\) first"):
        Penstock().publish("chat", "hi")
    made = make(PENSTOCK_URL="memory:")
    stranger = Flask("stranger")
    with stranger.app_context(), pytest.raises(RuntimeError, match="not initialised for 'stranger'"):
        made.sse.publish("chat", "hi")


SETTINGS: dict[str, Any] = {
    "keep_alive": 20.5,
    "retry": 1234,
    "publish_timeout": 0.5,
    "max_event_bytes": 100,
    "max_streams": 7,
    "max_streams_per_client": 3,
    "overflow": "refuse",
    "cors_origins": ("https://app.example",),
    "stream_lifetime": 3600.0,
    "ring_events": 50,
    "ring_bytes": 4096,
    "max_age": None,
    "max_events": 1000,
    "max_bytes": 10_000_000,
}


def test_every_option_is_a_setting(make: type[Made]) -> None:
    assert SETTINGS.keys() == {field.name for field in dataclasses.fields(Options)}
    config = {f"PENSTOCK_{name.upper()}": value for name, value in SETTINGS.items()}
    made = make(PENSTOCK_URL="memory:", **config)
    assert dataclasses.asdict(made.sse.bus.options) == SETTINGS


def test_settings_may_come_from_the_environment(
    make: type[Made], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLASK_PENSTOCK_URL", "sqlite:///from-environment.db")
    monkeypatch.setenv("FLASK_PENSTOCK_KEEP_ALIVE", "2.5")
    monkeypatch.setenv("FLASK_PENSTOCK_MAX_AGE", "null")
    source = Flask(__name__)
    source.config.from_prefixed_env()
    found = {name: source.config[name] for name in source.config if "PENSTOCK" in name}
    made = make(**found)
    assert (made.sse.bus.options.keep_alive, made.sse.bus.options.max_age) == (2.5, None)
    made.sse.publish("chat", "hi")
    assert (tmp_path / "from-environment.db").exists()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("PENSTOCK_KEEPALIVE", "PENSTOCK_KEEP_ALIVE"),
        ("PENSTOCK_MAX_STREAM", "PENSTOCK_MAX_STREAMS"),
        ("PENSTOCK_URI", "PENSTOCK_URL"),
    ],
)
def test_an_unknown_setting_is_told_with_the_near_one(name: str, near: str) -> None:
    app = Flask(__name__)
    app.config[name] = 1
    with pytest.raises(ConfigError, match=rf"{name}.*did you mean '?{near}'?\?"):
        Penstock(app)


def test_a_setting_that_is_like_no_other_is_told_with_all() -> None:
    app = Flask(__name__)
    app.config["PENSTOCK_XYZ"] = 1
    with pytest.raises(ConfigError, match=r"PENSTOCK_XYZ.*there are .*PENSTOCK_KEEP_ALIVE"):
        Penstock(app)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"PENSTOCK_URL": "nonsense"}, "a URL without a scheme"),
        ({"PENSTOCK_URL": "mysql://u:secret@h/db"}, "no log is known for 'mysql:'"),
        ({"PENSTOCK_URL": "sqlite://u:secret@h/db"}, "names no file"),
        ({"PENSTOCK_URL": None}, "a log's URL is text"),
        ({"PENSTOCK_KEEP_ALIVE": "20"}, "keep_alive is a number from 0.1 to 3600, not '20'"),
        ({"PENSTOCK_KEEP_ALIVE": 0}, "keep_alive is a number"),
        ({"PENSTOCK_OVERFLOW": "wait"}, "overflow is 'poll' or 'refuse', not 'wait'"),
        ({"PENSTOCK_MAX_STREAMS": -1}, "max_streams is a whole number"),
    ],
)
def test_a_setting_that_cannot_work_is_told_before_anything_is_opened(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    app = Flask(__name__)
    app.config.update(config)
    with pytest.raises(ConfigError) as caught:
        Penstock(app)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Provider(DefaultJSONProvider):
    @staticmethod
    def default(o: Any) -> Any:
        return o.isoformat() if isinstance(o, datetime) else DefaultJSONProvider.default(o)


def test_each_app_encodes_with_its_own_json_provider(make: type[Made]) -> None:
    sse = Penstock()
    plain, own = make(sse, PENSTOCK_URL="memory:"), make(sse, PENSTOCK_URL="memory:")
    own.app.json = Provider(own.app)
    for made in (plain, own):
        with made.app.app_context():
            sse.publish("chat", {"at": datetime(2026, 1, 2, tzinfo=UTC)})
    assert texts(own.events()) == ['{"at": "2026-01-02T00:00:00+00:00"}']
    assert texts(plain.events()) == ['{"at": "Fri, 02 Jan 2026 00:00:00 GMT"}']


def test_data_that_is_no_json_is_told_with_its_place(make: type[Made]) -> None:
    made = make(PENSTOCK_URL="memory:")
    with pytest.raises(BadData, match="people"):
        made.sse.publish("chat", {"people": [{"name": object()}]})
    assert made.events() == []


def test_text_is_sent_as_it_is(make: type[Made]) -> None:
    made = make(PENSTOCK_URL="memory:")
    made.sse.publish("chat", '{"already": "JSON"}')
    made.sse.publish("chat", "ünïcödé ☃".encode())
    assert texts(made.events()) == ['{"already": "JSON"}', "ünïcödé ☃"]


def test_publish_many_end_and_subscribe_are_those_of_the_log(make: type[Made]) -> None:
    made = make(PENSTOCK_URL="memory:")
    positions = made.sse.publish_many([Event("chat", "1"), Event("chat", "2", event="typed")])
    end = made.sse.end("chat")
    assert [position.seq for position in [*positions, end]] == [1, 2, 3]
    with made.sse.subscribe("chat", after="earliest") as records:
        assert [record.data for record in records if not record.end] == ["1", "2"]
    assert made.sse.stats().published == 3
    client = made.app.test_client()
    assert client.get("/events", headers={"Last-Event-ID": str(end)}).status_code == 204


def test_a_key_is_stored_once(make: type[Made]) -> None:
    made = make(PENSTOCK_URL="memory:")
    first = made.sse.publish("chat", "hi", key="a")
    assert made.sse.publish("chat", "hi again", key="a") == first
    assert texts(made.events()) == ["hi"]
