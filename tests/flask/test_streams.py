"""What a stream is, on every server that a Flask app runs on."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path

import pytest

from penstock.log import open_log
from penstock.log.base import Retention
from tests.flask.ask import (
    ANSWER_WITHIN_S,
    answer,
    events_url,
    get,
    post,
    publish,
    read_block,
    stats,
    wait_for_streams,
)
from tests.flask.conftest import APP, KINDS, STRANGER, Servers
from tests.support.client import SSEClient
from tests.support.processes import Server
from tests.support.wait import wait_for

FIRST_BLOCK = re.compile(r"retry: 3000\nid: [a-z0-9]{8}:\d+\nevent: penstock\.position\ndata: \n")
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
SERVERS_OWN_HEADERS = {"server", "date", "connection", "transfer-encoding"}


def data(client: SSEClient) -> list[str]:
    return [message.data for message in client.messages]


def test_headers_and_first_bytes_arrive_before_any_event(server: Server, channel: str) -> None:
    with answer(server, events_url(channel)) as response:
        assert response.status == 200
        assert FIRST_BLOCK.fullmatch(read_block(response))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_headers_are_those_of_the_design(server: Server, channel: str, method: str) -> None:
    accepts = {"Accept-Encoding": "gzip, deflate, br, zstd", "Accept": "text/event-stream"}
    with answer(server, events_url(channel), method=method, headers=accepts) as response:
        sent = {name.lower(): value for name, value in response.getheaders()}
        assert {name: sent.pop(name, None) for name in HEADERS} == HEADERS
        assert sent.keys() <= SERVERS_OWN_HEADERS


def test_events_arrive_in_order_with_their_positions(server: Server, channel: str) -> None:
    with SSEClient(server.url + events_url(channel)) as client:
        client.wait_open()
        positions = publish(server, channel, *map(str, range(20)))
        messages = client.wait_for_messages(20)
    assert [(m.data, m.id) for m in messages] == [
        (str(index), position) for index, position in enumerate(positions)
    ]


@pytest.mark.parametrize("where", ["header", "query"])
def test_a_client_that_comes_back_gets_what_it_missed(server: Server, channel: str, where: str) -> None:
    first, *_ = publish(server, channel, "had", "missed 1", "missed 2")
    query = {} if where == "header" else {"last_event_id": first}
    header = first if where == "header" else ""
    with SSEClient(server.url + events_url(channel, **query), header) as client:
        client.wait_for_messages(2)
        publish(server, channel, "new")
        client.wait_for_messages(3)
        assert data(client) == ["missed 1", "missed 2", "new"]


def test_the_header_is_newer_than_the_query(server: Server, channel: str) -> None:
    first, second, _ = publish(server, channel, "1", "2", "3")
    with SSEClient(server.url + events_url(channel, last_event_id=first), second) as client:
        client.wait_for_messages(1)
        assert data(client) == ["3"]


def test_last_gives_the_newest_events_of_its_channels(server: Server, channel: str) -> None:
    publish(server, channel, "1", "2")
    publish(server, f"{channel}/other", "not this one")
    publish(server, channel, "3")
    with SSEClient(server.url + events_url(channel, last=2)) as client:
        client.wait_for_messages(2)
        publish(server, channel, "4")
        client.wait_for_messages(3)
        assert data(client) == ["2", "3", "4"]


def test_last_is_for_clients_without_a_position(server: Server, channel: str) -> None:
    *_, newest = publish(server, channel, "1", "2")
    with SSEClient(server.url + events_url(channel, last=2), newest) as client:
        client.wait_open()
        publish(server, channel, "3")
        client.wait_for_messages(1)
        assert data(client) == ["3"]


def test_after_gives_what_follows_a_position(server: Server, channel: str) -> None:
    first, *_ = publish(server, channel, "1", "2")
    with SSEClient(server.url + events_url(channel, after=first)) as client:
        client.wait_for_messages(1)
        assert data(client) == ["2"]


def test_after_earliest_gives_all_that_is_kept(server: Server, channel: str) -> None:
    publish(server, channel, "1", "2")
    with SSEClient(server.url + events_url(channel, after="earliest")) as client:
        client.wait_for_messages(2)
        assert data(client) == ["1", "2"]


def test_an_event_has_its_type_and_its_lines(server: Server, channel: str) -> None:
    lines = "one\ntwo\r\nthree\rfour  and \v\f\u0085\u2028 no more"
    with SSEClient(server.url + events_url(channel)) as client:
        client.wait_open()
        publish(server, channel, lines, event="verse")
        publish(server, channel, "", event="empty")
        verse, empty = client.wait_for_messages(2)
    assert (verse.event, verse.data) == ("verse", re.sub("\r\n?", "\n", lines))
    assert (empty.event, empty.data) == ("empty", "")


def test_data_is_encoded_by_the_app_s_json_provider(server: Server, channel: str) -> None:
    with SSEClient(server.url + events_url(channel)) as client:
        client.wait_open()
        post(server, "/moment", channel=channel)
        assert json.loads(client.next().data) == {"at": "2026-01-02T00:00:00+00:00"}


def test_patterns_and_several_channels_share_a_stream(server: Server, channel: str) -> None:
    with SSEClient(server.url + events_url(f"{channel}/*", f"{channel}-two")) as client:
        client.wait_open()
        publish(server, f"{channel}/a", "a")
        publish(server, f"{channel}/a/b", "too deep")
        publish(server, f"{channel}-two", "two")
        publish(server, f"{channel}/c", "c")
        client.wait_for_messages(3)
        assert data(client) == ["a", "two", "c"]


def test_a_silent_stream_is_kept_alive_with_a_position_that_moves(server: Server, channel: str) -> None:
    with SSEClient(server.url + events_url(channel)) as client:
        client.wait_open()
        (elsewhere,) = publish(server, f"{channel}/elsewhere", "for others")
        wait_for(lambda: client.last_event_id == elsewhere, what=lambda: f"{client} moves on")
        assert not client.messages
        assert {notice.event for notice in client.notices} == {"penstock.position"}


@pytest.mark.parametrize(
    ("last_event_id", "reason"),
    [
        ("no position", "malformed"),
        ("%E2%82%AC:1", "malformed"),
        ("abcdefgh:1", "epoch"),
        ("{epoch}:999999999", "ahead"),
    ],
)
def test_a_position_without_meaning_is_a_gap_notice_and_the_stream_goes_on(
    server: Server, channel: str, last_event_id: str, reason: str
) -> None:
    (before,) = publish(server, channel, "before")
    epoch = before.partition(":")[0]
    sent = last_event_id.format(epoch=epoch)
    with SSEClient(server.url + events_url(channel), sent) as client:
        gap = client.wait_for_notice("penstock.gap")
        told = json.loads(gap.data)
        assert (told["reason"], told["after"]) == (reason, sent)
        assert told["resumes"] == gap.id
        publish(server, channel, "after")
        wait_for(lambda: "after" in data(client), what=lambda: f"{client} goes on")
        assert client.statuses == [200]


def test_a_trimmed_position_is_a_gap_notice(tmp_path: Path) -> None:
    with Server.gunicorn(APP, tmp_path) as server:
        first, *_ = publish(server, "chat", *"12345")
        server.kill()
        log = open_log(f"sqlite:///{tmp_path}/penstock.db")
        log.trim(Retention(None, 2, None))
        log.close()
        server.start()
        with SSEClient(server.url + events_url("chat"), first) as client:
            client.wait_for_messages(2)
            gap = json.loads(client.wait_for_notice("penstock.gap").data)
            epoch = first.partition(":")[0]
            assert gap == {"reason": "expired", "after": first, "resumes": f"{epoch}:3"}
            assert data(client) == ["4", "5"]


def test_an_ended_channel_is_told_then_closed_then_204(server: Server, channel: str) -> None:
    with SSEClient(server.url + events_url(channel), auto_reconnect=True) as client:
        client.wait_open()
        publish(server, channel, "last words")
        post(server, "/end", channel=channel)
        client.wait_closed()
        assert data(client) == ["last words"]
        assert json.loads(client.notices[-1].data) == {"channel": channel}
        assert client.notices[-1].event == "penstock.end"
        assert client.statuses == [200, 204]
    publish(server, channel, "it begins again")
    with SSEClient(client.url, client.last_event_id) as client:
        client.wait_for_messages(1)
        assert data(client) == ["it begins again"]


def test_a_gap_in_an_ended_channel_is_told_then_closed_then_204(server: Server, channel: str) -> None:
    publish(server, channel, "last words")
    post(server, "/end", channel=channel)
    with SSEClient(server.url + events_url(channel), "nonsense", auto_reconnect=True) as client:
        client.wait_closed()
        assert [notice.event for notice in client.notices] == ["penstock.gap"]
        assert client.statuses == [200, 204]
        assert not client.errors


def test_a_stream_ends_with_the_last_of_its_channels(server: Server, channel: str) -> None:
    with SSEClient(server.url + events_url(channel, f"{channel}-two")) as client:
        client.wait_open()
        post(server, "/end", channel=channel)
        publish(server, f"{channel}-two", "still here")
        client.wait_for_messages(1)
        post(server, "/end", channel=f"{channel}-two")
        client.wait_closed()
        assert [n.event for n in client.notices if n.event != "penstock.position"] == ["penstock.end"] * 2


def test_head_gets_headers_and_opens_no_stream(server: Server, channel: str) -> None:
    wait_for_streams(server, 0)
    before = stats(server)
    with answer(server, events_url(channel), method="HEAD") as response:
        assert response.status == 200
        assert response.read() == b""
    after = stats(server)
    assert after["streams"] == 0
    assert (after["delivered"], after["bytes"]) == (before["delivered"], before["bytes"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_leaves_a_silent_stream_is_noticed_at_once(tmp_path: Path, kind: str) -> None:
    with KINDS[kind](APP, tmp_path, {"PENSTOCK_KEEP_ALIVE": "600"}) as server:
        clients = [SSEClient(server.url + events_url("quiet")) for _ in range(5)]
        for client in clients:
            client.wait_open()
        wait_for_streams(server, 5)
        threads = int(get(server, "/threads"))
        for client in clients:
            client.close()
        wait_for_streams(server, 0)  # long before the keep-alive
        if kind.startswith("werkzeug"):  # a thread for each request, the others have a pool
            wait_for(lambda: int(get(server, "/threads")) <= threads - 5, what="threads end")


def test_on_a_server_that_shows_no_socket_a_keep_alive_notices(tmp_path: Path) -> None:
    env = {"PENSTOCK_KEEP_ALIVE": "0.5"}
    with Server.waitress(STRANGER, tmp_path, env=env) as server:
        with SSEClient(server.url + events_url("quiet")) as client:
            client.wait_open()
            wait_for_streams(server, 1)
        wait_for_streams(server, 0)  # the first write tells the system, the next one us
        assert "through WSGI on stranger/1.0, at most 6 at once" in server.log


@pytest.mark.parametrize("kind", ["waitress", "gunicorn"])  # werkzeug chunks what it sends to 1.0
def test_an_old_client_of_http_1_0_is_served(servers: Servers, kind: str, channel: str) -> None:
    server = servers[kind]
    with answer(server, events_url(channel), version="1.0") as response:
        assert response.getheader("Transfer-Encoding") is None
        assert FIRST_BLOCK.fullmatch(read_block(response))
        (position,) = publish(server, channel, "hi")
        wait_for(lambda: read_block(response) == f"id: {position}\ndata: hi\n", what="the event comes")


def test_a_connection_serves_another_request_after_a_stream(servers: Servers, channel: str) -> None:
    server = servers["gunicorn"]
    with SSEClient(server.url + events_url(channel)) as other:
        other.wait_open()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_WITHIN_S)
        for _ in range(5):
            connection.request("GET", events_url(f"{channel}/job"))
            response = connection.getresponse()
            read_block(response)
            post(server, "/end", channel=f"{channel}/job")
            assert b"event: penstock.end" in response.read()
            publish(server, f"{channel}/job", "it begins again")
            connection.request("GET", "/ping")
            assert connection.getresponse().read() == b"pong"
        connection.close()


def test_an_error_before_the_stream_is_a_plain_500(server: Server) -> None:
    with answer(server, "/fails") as response:
        assert response.status == 500
        assert response.headers.get_content_type() == "text/html"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("channel=bad channel", "BadChannel: "),
        ("channel=", "BadChannel: "),
        ("", "BadChannel: "),
        ("channel=chat&after=nonsense", "MalformedPosition: 'nonsense' is not a position"),
        ("channel=chat&last=-1", "ConfigError: last is a whole number from 0 to 10000, not -1"),
        ("channel=chat&last=1&after=earliest", "ConfigError: a stream begins after a position or"),
    ],
)
def test_arguments_that_cannot_work_are_told(servers: Servers, query: str, message: str) -> None:
    with answer(servers["waitress"], "/checked?" + query.replace(" ", "%20")) as response:
        assert response.status == 400
        assert response.read().decode().startswith(message)
