"""How the extension is set up, and the life of its app. In this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, Response
from quart.json.provider import DefaultJSONProvider

from penstock import Event, StreamInfo
from penstock.errors import Closed, ConfigError
from penstock.log.memory import MemoryLog
from penstock.quart import Penstock
from penstock.testing import AsyncASGIClient
from tests.support.wait import DEADLINE_S


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Made:
    """An app with the extension, closed by the end of the test."""

    def __init__(self, sse: Penstock | None = None, **config: Any) -> None:
        self.app = Quart(__name__)
        self.app.config.update(config)
        self.sse = Penstock(self.app) if sse is None else sse
        if sse is not None:
            sse.init_app(self.app)
        self.app.add_url_rule("/events", view_func=self.events)
        self.app.add_url_rule("/say/<text>", view_func=self.say)

    async def events(self) -> Response:
        return await self.sse.stream("chat", after="earliest")

    async def say(self, text: str) -> str:
        return str(await self.sse.apublish("chat", text))

    def client(self) -> AsyncASGIClient:
        return AsyncASGIClient(self.app, lifespan=False, timeout=DEADLINE_S)


async def texts(client: AsyncASGIClient, count: int) -> list[str]:
    async with client.stream("/events") as page:
        return [event.data for event in await page.events(count)]


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


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


# Apps and their settings


@pytest.mark.parametrize("at_once", [True, False])
def test_an_app_may_be_given_at_once_or_later(make: type[Made], tmp_path: Path, at_once: bool) -> None:
    async def test() -> None:
        made = make() if at_once else make(Penstock())
        await made.sse.apublish("chat", "hi")
        assert await texts(made.client(), 1) == ["hi"]
        assert (tmp_path / "penstock.db").exists()

    run(test)


def test_nothing_is_opened_or_started_before_the_first_use(make: type[Made], tmp_path: Path) -> None:
    async def test() -> None:
        threads = set(threading.enumerate())
        made = make()
        assert (await made.client().stream("/nowhere")).status == 404
        assert list(tmp_path.iterdir()) == []
        assert set(threading.enumerate()) <= threads

    run(test)


def test_publishing_needs_no_request_and_no_loop(make: type[Made]) -> None:
    made = make(PENSTOCK_URL="memory:")
    made.sse.publish("chat", "from a script")
    thread = threading.Thread(target=made.sse.publish, args=("chat", "from a thread"))
    thread.start()
    thread.join()
    run(lambda: has_texts(made, ["from a script", "from a thread"]))


async def has_texts(made: Made, wanted: list[str]) -> None:
    assert await texts(made.client(), len(wanted)) == wanted


def test_several_apps_have_logs_of_their_own(make: type[Made]) -> None:
    async def test() -> None:
        sse = Penstock()
        one = make(sse, PENSTOCK_URL="sqlite:///one.db")
        two = make(sse, PENSTOCK_URL="sqlite:///two.db")
        assert (await one.client().stream("/say/first")).status == 200
        assert (await two.client().stream("/say/second")).status == 200
        async with two.app.app_context():
            await sse.apublish("chat", "third")
            await asyncio.to_thread(sse.publish, "chat", "fourth")
        await has_texts(one, ["first"])
        await has_texts(two, ["second", "third", "fourth"])
        with pytest.raises(RuntimeError, match=r"say which, 'async with app\.app_context\(\):'"):
            await sse.apublish("chat", "hi")

    run(test)


def test_an_app_is_initialised_once_and_one_without_the_extension_is_told(make: type[Made]) -> None:
    async def test() -> None:
        with pytest.raises(RuntimeError, match=r"call init_app\(app\) first"):
            await Penstock().apublish("chat", "hi")
        made = make(PENSTOCK_URL="memory:")
        with pytest.raises(ConfigError, match=r"was initialised for .* already"):
            Penstock(made.app)
        async with Quart("stranger").app_context():
            with pytest.raises(RuntimeError, match="not initialised for 'stranger'"):
                await made.sse.apublish("chat", "hi")

    run(test)


def test_settings_are_read_and_checked(make: type[Made]) -> None:
    made = make(PENSTOCK_URL="memory:", PENSTOCK_KEEP_ALIVE=2.5, PENSTOCK_MAX_AGE=None)
    assert (made.sse.bus.options.keep_alive, made.sse.bus.options.max_age) == (2.5, None)
    with pytest.raises(ConfigError, match="did you mean 'PENSTOCK_KEEP_ALIVE'"):
        make(PENSTOCK_KEEPALIVE=20)
    with pytest.raises(ConfigError, match=r"keep_alive is a number from 0\.1 to 3600, not '20'"):
        make(PENSTOCK_KEEP_ALIVE="20")


class Provider(DefaultJSONProvider):
    @staticmethod
    def default(object_: Any) -> Any:
        return object_.isoformat() if isinstance(object_, datetime) else DefaultJSONProvider.default(object_)


def test_each_app_encodes_with_its_own_json_provider(make: type[Made]) -> None:
    async def test() -> None:
        sse = Penstock()
        plain, own = make(sse, PENSTOCK_URL="memory:"), make(sse, PENSTOCK_URL="memory:")
        own.app.json = Provider(own.app)
        for made in (plain, own):
            async with made.app.app_context():
                await sse.apublish("chat", {"at": datetime(2026, 1, 2, tzinfo=UTC)})
                sse.publish("chat", {"at": datetime(2026, 1, 3, tzinfo=UTC)})
        await has_texts(own, [f'{{"at": "2026-01-0{day}T00:00:00+00:00"}}' for day in (2, 3)])
        assert "Fri, 02 Jan 2026 00:00:00 GMT" in (await texts(plain.client(), 1))[0]

    run(test)


def test_whatever_may_wait_is_there_for_threads_and_for_coroutines(make: type[Made]) -> None:
    async def test() -> None:
        made = make(PENSTOCK_URL="memory:")
        sse = made.sse
        events = [Event("chat", "1"), Event("chat", "2", event="typed")]
        seqs = [position.seq for position in await sse.apublish_many(events) + sse.publish_many(events)]
        assert seqs == [1, 2, 3, 4]
        assert await sse.apublish("chat", "5", key="once") == sse.publish("chat", "again", key="once")
        records = [record.data for record in await first_of(sse, 5)]
        assert records == ["1", "2", "1", "2", "5"]
        with sse.subscribe("chat", after="earliest") as subscriber:
            assert next(subscriber).data == "1"
        assert (await sse.aend("chat")).seq == sse.end("chat").seq - 1
        assert sse.stats().published == 7

    run(test)


async def first_of(sse: Penstock, count: int) -> list[Any]:
    records: list[Any] = []
    async for record in sse.asubscribe("chat", after="earliest"):
        records.append(record)
        if len(records) == count:
            break
    return records


def follows(stream: StreamInfo, channel: str) -> bool:
    return channel in stream.channels


def test_streams_are_kicked_by_their_user_and_by_a_predicate(make: type[Made]) -> None:
    async def test() -> None:
        made = make(PENSTOCK_URL="memory:")
        sse = made.sse
        sse.predicate(follows)

        @made.app.get("/of/<user>")
        async def of(user: str) -> Response:
            return await sse.stream("chat", f"user/{user}", user=user)

        client = made.client()
        ada, ben, eve = [await client.stream(f"/of/{name}") for name in ("ada", "ben", "eve")]
        await sse.akick("ada")
        sse.kick(follows, "user/ben")
        for page in (ada, ben):
            assert (await page.next_event()).json() == {"reason": "kicked"}
            await page.wait_closed()
        await sse.apublish("chat", "to those who are left")
        assert (await eve.next_event()).data == "to those who are left"
        await client.aclose()

    run(test)


# The life of the app


class Held(MemoryLog):
    """A log whose end takes as long as somebody says."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = threading.Event()
        self.go_on = threading.Event()
        self.in_time = False

    def close(self) -> None:
        self.closing.set()
        self.in_time = self.go_on.wait(DEADLINE_S)
        super().close()


def test_the_end_of_the_life_closes_the_log_and_does_not_block_the_loop(make: type[Made]) -> None:
    log = Held()

    async def test() -> None:
        made = make(PENSTOCK_URL=lambda: log)

        async def goes_on() -> None:
            while not log.closing.is_set():
                await asyncio.sleep(0.001)
            log.go_on.set()

        async with AsyncASGIClient(made.app, timeout=2 * DEADLINE_S):
            await made.sse.apublish("chat", "hi")
            going = asyncio.create_task(goes_on())
        await going
        with pytest.raises(Closed):
            await made.sse.apublish("chat", "too late")

    run(test)
    assert log.in_time, "the loop went on while the log was being closed"


def test_all_that_the_app_does_when_it_starts_and_stops_may_publish(make: type[Made]) -> None:
    async def test() -> None:
        published = []
        app = Quart(__name__)

        async def publish() -> None:
            published.append(await app.extensions["penstock"].bus.apublish("chat", "hi"))

        app.before_serving(publish)  # before there is an extension
        app.config["PENSTOCK_URL"] = "sqlite:///penstock.db"
        sse = Penstock(app)
        app.after_serving(publish)
        for _ in range(3):
            async with AsyncASGIClient(app, timeout=DEADLINE_S):
                await publish()
            with pytest.raises(Closed):
                sse.publish("chat", "too late")
        assert [position.seq for position in published] == list(range(1, 10))

    run(test)


def test_an_app_lives_as_often_as_it_is_served(make: type[Made]) -> None:
    async def test() -> None:
        made = make(PENSTOCK_URL="memory:")
        for number in range(3):
            async with AsyncASGIClient(made.app, timeout=DEADLINE_S) as client:
                await made.sse.apublish("chat", str(number))
                assert await texts(client, 1) == [str(number)]
                assert not made.sse.stats().draining
        assert len(made.app.after_serving_funcs) == 1

    run(test)
