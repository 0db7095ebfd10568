"""What is true of a stream in every framework, on every server.

The facts of doors are in ``tests.doors.test_table``; these are of what a face adds: its framework's request
and response, who may read, and for how long.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable

import pytest

from penstock import Penstock
from tests.doors.servers import publish_beside
from tests.flask.ask import answer, events_url, get, post, publish, read_block, wait_for_streams
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.wait import wait_for

FRIEND, STRANGER = "https://friend.example", "https://stranger.example"
ENV = {"PENSTOCK_KEEP_ALIVE": "60", "PENSTOCK_CORS_ORIGINS": json.dumps([FRIEND])}
REVOKED = "event: penstock.revoked\ndata: "
FAREWELL = re.compile(r"retry: \d{4,5}\nid: [a-z0-9]{8}:\d+\nevent: penstock\.position\ndata: \n")
UNTIL_S = 0.5


@pytest.fixture
def channel() -> str:
    """A channel that no other test uses."""
    return f"open/{uuid.uuid4().hex[:12]}"


def kick_here(server: Server, user: str) -> None:
    """Kick by a request of the server's."""
    post(server, "/kick", user=user)


def kick_beside(server: Server, user: str) -> None:
    """Kick as another process of the machine does."""
    with Penstock(f"sqlite:///{server.folder}/penstock.db") as bus:
        bus.kick(user)


class Facts:
    """To be run with a fixture ``server``."""

    def test_a_stream_replays_goes_on_and_tells_of_the_end(self, server: Server, channel: str) -> None:
        had, *missed = publish(server, channel, "had", "missed")
        with SSEClient(server.url + events_url(channel), had) as client:
            client.wait_for_messages(1)
            new = publish_beside(server, channel, "näxt", "two\nlines")
            new += publish(server, channel, "ü")
            messages = client.wait_for_messages(4)
            assert [m.id for m in messages] == missed + new
            assert [m.data for m in messages] == ["missed", "näxt", "two\nlines", "ü"]
            assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
            post(server, "/end", channel=channel)
            client.wait_closed()
        with answer(server, events_url(channel, last_event_id=client.last_event_id)) as response:
            assert response.status == 204
            assert response.read() == b""

    def test_the_last_events_are_asked_for_by_number(self, server: Server, channel: str) -> None:
        publish(server, channel, "1", "2", "3")
        with answer(server, events_url(channel, last=2)) as response:
            read_block(response)
            assert [read_block(response).split("data: ")[1] for _ in range(2)] == ["2\n", "3\n"]

    @pytest.mark.parametrize("sent", [b"nonsense", b"\xff\xfe", b"x" * 5_000, "ä:1".encode()])
    def test_whatever_a_client_says_it_had_it_gets_a_stream(
        self, server: Server, channel: str, sent: bytes
    ) -> None:
        with answer(server, events_url(channel), headers={"Last-Event-ID": sent}) as response:  # type: ignore[dict-item]
            assert response.status == 200
            told = read_block(response)
            assert "event: penstock.gap\n" in told
            assert '"reason": "malformed"' in told
            publish(server, channel, "it goes on")
            assert "data: it goes on\n" in read_block(response)

    def test_head_gets_the_headers_alone(self, server: Server, channel: str) -> None:
        wait_for_streams(server, 0)
        with answer(server, events_url(channel), method="HEAD") as response:
            assert response.status == 200
            assert response.getheader("Content-Type") == "text/event-stream; charset=utf-8"
            assert response.read() == b""
        wait_for_streams(server, 0)

    def test_a_cookie_of_the_view_goes_out_with_the_stream(self, server: Server, channel: str) -> None:
        with answer(server, events_url(channel, cookie="yes")) as response:
            assert (response.getheader("Set-Cookie") or "").startswith("seen=yes")
            assert "penstock.position" in read_block(response)

    def test_it_is_told_when_a_client_has_gone(self, server: Server, channel: str) -> None:
        tells = f"{channel}/over"
        with SSEClient(server.url + events_url(tells)) as client:
            client.wait_open()
            with answer(server, events_url(channel, tells=tells)) as response:
                read_block(response)
            assert client.wait_for_messages(1)[0].data == "over"
        wait_for_streams(server, 0)

    # Channels that the client names

    def test_a_client_may_name_channels_that_it_may_read(self, server: Server, channel: str) -> None:
        also = f"{channel}/also"
        with SSEClient(f"{server.url}/named?channel={channel}&channel={also}") as client:
            client.wait_open()
            positions = publish(server, channel, "1") + publish(server, also, "2")
            client.wait_for_messages(2)
            assert [m.id for m in client.messages] == positions

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ("channel=secret", 403),
            ("channel={open}&channel=secret", 403),
            ("channel=open/*", 400),
            ("channel=**", 400),
            ("channel=penstock.kicks", 400),
            ("channel=", 400),
            ("channel=open//x", 400),
            ("", 400),
            ("&".join(f"channel=open/{n}" for n in range(101)), 400),
        ],
        ids=["secret", "one-secret", "pattern", "all", "own", "empty", "bad", "none", "many"],
    )
    def test_other_channels_are_refused(self, server: Server, channel: str, query: str, status: int) -> None:
        with answer(server, f"/named?{query.format(open=channel)}") as response:
            assert response.status == status
            assert response.getheader("Content-Type") == "text/plain; charset=utf-8"
            assert 10 < len(response.read()) < 300
        wait_for_streams(server, 0)

    def test_without_a_word_on_who_may_read_all_are_refused(self, server: Server, channel: str) -> None:
        with answer(server, f"/denied?channel={channel}") as response:
            assert response.status == 403

    def test_named_sites_may_read_with_credentials_and_others_not_at_all(
        self, server: Server, channel: str
    ) -> None:
        for path in (f"/named?channel={channel}", events_url(channel)):
            with answer(server, path, headers={"Origin": FRIEND}) as response:
                assert response.getheader("Access-Control-Allow-Origin") == FRIEND
                assert response.getheader("Access-Control-Allow-Credentials") == "true"
                assert "Origin" in (response.getheader("Vary") or "")
            with answer(server, path, headers={"Origin": STRANGER}) as response:
                assert response.getheader("Access-Control-Allow-Origin") is None
                assert "Origin" in (response.getheader("Vary") or "")
        with answer(server, "/named?channel=secret", headers={"Origin": FRIEND}) as response:
            assert response.getheader("Access-Control-Allow-Origin") == FRIEND, "to see that it is refused"

    def test_a_browser_may_ask_beforehand(self, server: Server, channel: str) -> None:
        asks = {"Origin": FRIEND, "Access-Control-Request-Method": "GET"}
        with answer(server, f"/named?channel={channel}", method="OPTIONS", headers=asks) as response:
            assert response.status == 204
            assert "GET" in (response.getheader("Access-Control-Allow-Methods") or "")
            assert "Last-Event-ID" in (response.getheader("Access-Control-Allow-Headers") or "")
        asks["Origin"] = STRANGER
        with answer(server, f"/named?channel={channel}", method="OPTIONS", headers=asks) as response:
            assert response.getheader("Access-Control-Allow-Methods") is None

    # The end of a right

    def test_a_stream_is_told_and_closed_when_its_right_ends(self, server: Server, channel: str) -> None:
        began = time.time()
        with answer(server, events_url(channel, until=str(began + UNTIL_S))) as response:
            assert "event: penstock.position\n" in read_block(response)
            assert read_block(response) == f'{REVOKED}{{"reason": "expired"}}\n'
            assert time.time() - began >= UNTIL_S
            assert FAREWELL.fullmatch(read_block(response))
            assert response.read() == b""
        wait_for_streams(server, 0)

    def test_a_right_that_has_ended_is_none(self, server: Server, channel: str) -> None:
        (first,) = publish(server, channel, "secret")
        with answer(server, events_url(channel, after="earliest", until=str(time.time() - 1))) as response:
            assert response.status == 200
            assert b"secret" not in response.read(), f"{first} came before the right ended"

    @pytest.mark.parametrize("kick", [kick_here, kick_beside], ids=["here", "beside"])
    def test_a_kick_closes_the_streams_of_a_user_and_no_others(
        self, server: Server, channel: str, kick: Callable[[Server, str], None]
    ) -> None:
        alice, bob = f"alice {channel}", f"bob {channel}"
        with (
            answer(server, events_url(channel, user=alice)) as hers,
            answer(server, events_url(channel, user=alice)) as hers_too,
            answer(server, events_url(channel, user=bob)) as his,
            answer(server, events_url(channel)) as nobodys,
        ):
            streams = (hers, hers_too, his, nobodys)
            for each in streams:
                read_block(each)
            wait_for_streams(server, 4)
            publish(server, channel, "to all")
            for each in streams:
                assert "data: to all" in read_block(each)
            kick(server, alice)
            for each in (hers, hers_too):
                assert read_block(each) == f'{REVOKED}{{"reason": "kicked"}}\n'
                assert FAREWELL.fullmatch(read_block(each))
                assert each.read() == b""
            publish(server, channel, "to those who are left")
            for each in (his, nobodys):
                assert "data: to those who are left" in read_block(each)
        wait_for_streams(server, 0)

    def test_a_kick_by_a_predicate_closes_the_streams_that_it_is_true_of(
        self, server: Server, channel: str
    ) -> None:
        with (
            answer(server, events_url(channel, f"{channel}/2")) as follows,
            answer(server, events_url(f"{channel}/2")) as does_not,
        ):
            read_block(follows)
            read_block(does_not)
            wait_for_streams(server, 2)
            post(server, "/kick", channel=channel)
            assert read_block(follows).startswith(REVOKED)
            publish(server, f"{channel}/2", "goes on")
            assert "data: goes on" in read_block(does_not)

    def test_nobody_reads_the_kicks(self, server: Server, channel: str) -> None:
        with answer(server, events_url("**")) as response:
            read_block(response)
            kick_beside(server, "somebody else")
            (position,) = publish(server, channel, "after the kick")
            assert read_block(response) == f"id: {position}\ndata: after the kick\n"

    # The end of a server. These come last: they stop it.

    def test_sigterm_tells_streams_and_does_not_hang(
        self, stopping: Server, told: bool, channel: str
    ) -> None:
        with SSEClient(stopping.url + events_url(channel)) as client:
            client.wait_open()
            positions = publish(stopping, channel, "1")
            client.wait_for_messages(1)
            assert stopping.process is not None
            stopping.process.terminate()
            client.wait_closed()
            stopping.process.wait(30)
            log = stopping.log
            stopping.kill()
            if told:
                assert not client.errors, "it is not cut"
                assert 1_000 <= (client.retry_ms or 0) <= 10_000
            positions += publish_beside(stopping, channel, "2")
            stopping.start()
            client.reconnect()
            client.wait_for_messages(2)
            assert [m.id for m in client.messages] == positions
        for complaint in ("without completing response", "Traceback", "Task was destroyed", "RuntimeWarning"):
            assert complaint not in log
        wait_for(lambda: get(stopping, "/ping") == "pong", what="it answers")
