"""What a stream tells a test, whatever the app is written for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from penstock.testing import EventStream, ReceivedEvent, StreamOver, StreamTimeout
from penstock.testing.exchange import HIGH_WATER
from tests.support.wait import wait_for
from tests.testing.apps import HELLO, Answers, events
from tests.testing.conftest import Serve

POSITION = b"id: a:%d\nevent: penstock.position\ndata: \n\n"
SOON_S = 0.2  # for what will not come


def fails_after(*pieces: bytes) -> Iterator[bytes]:
    yield from pieces
    raise KeyError("of the app")


def wait_for_end(stream: EventStream) -> None:
    """Wait until the app is done with it, without asking the stream, which would raise."""
    wait_for(lambda: stream.closed, what="the end of the stream")


def event(number: int) -> ReceivedEvent:
    return ReceivedEvent("message", str(number), str(number))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_come_whole_in_whatever_pieces_they_are_sent(serve: Serve, size: int) -> None:
    wire = "\ufeff: é\r\nid: é\revent: típ\r\ndata: 1\ndata: {}\n\nretry: 70\ndata\n\n".encode()
    pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
    with serve(Answers([pieces])).stream("/") as stream:
        assert stream.events(2) == [ReceivedEvent("típ", "1\n{}", "é"), ReceivedEvent("message", "", "é")]
        assert stream.retry_ms == 70
        assert stream.last_event_id == "é"
        assert stream.body == wire


def test_the_answer_has_its_status_and_headers(serve: Serve) -> None:
    answers = Answers([[HELLO]], headers={"Content-Type": "text/event-stream", "X-One": "1"})
    with serve(answers).stream("/") as stream:
        assert stream.status == 200
        assert stream.headers["x-one"] == stream.headers["X-One"] == "1"
        assert stream.headers["X-Two"] is None
        assert not stream.closed


def test_positions_are_passed_over_and_notices_are_not(serve: Serve) -> None:
    notices = b"".join(b"event: penstock.%s\ndata: {}\n\n" % kind for kind in (b"gap", b"error", b"end"))
    answers = Answers([[POSITION % 1, events(2), POSITION % 3, notices]])
    with serve(answers).stream("/") as stream:
        found = [event.event for event in stream.events(4)]
        assert found == ["message", "penstock.gap", "penstock.error", "penstock.end"]
    with serve(answers).stream("/", raw=True) as stream:
        assert stream.next_event() == ReceivedEvent("penstock.position", "", "a:1")


def test_data_is_decoded_and_what_is_no_json_is_shown(serve: Serve) -> None:
    with serve(Answers([[b'data: {"a": [1]}\n\ndata: one\n\n']])).stream("/") as stream:
        assert stream.next_event().json() == {"a": [1]}
        with pytest.raises(ValueError, match="Expecting value") as caught:
            stream.next_event().json()
        assert "data='one'" in caught.value.__notes__[0]


# Coming back


def test_it_comes_back_with_the_id_of_the_last_event_that_was_taken(serve: Serve) -> None:
    answers = Answers([[events(1, 2, 3)], [events(2, 3)], [HELLO]])
    with serve(answers).stream("/") as stream:
        assert stream.next_event() == event(1)
        stream.drop()
        assert stream.closed
        assert stream.reconnect().events(2) == [event(2), event(3)], "what was not taken did not come"
        stream.reconnect()
    assert answers.asked == [("GET", ""), ("GET", "1"), ("GET", "3")]


def test_a_position_counts_as_taken(serve: Serve) -> None:
    answers = Answers([[POSITION % 7], [b"id: b\n\n"], [HELLO], [b"id\n\n" + events(1)], [HELLO]])
    with serve(answers).stream("/") as stream:
        for _ in range(4):
            stream.reconnect()
    assert [asked for _, asked in answers.asked] == ["", "a:7", "b", "b", ""]


def test_a_client_may_come_with_an_id_from_before(serve: Serve) -> None:
    answers = Answers([[HELLO]])
    client = serve(answers)
    with (
        client.stream("/", last_event_id="é:1"),
        client.stream("/", headers={"last-event-id": "x"}) as stream,
    ):
        assert stream.last_event_id == "x"
    assert [asked for _, asked in answers.asked] == ["é:1", "x"]


def test_the_reconnection_time_is_kept_until_there_is_another(serve: Serve) -> None:
    with serve(Answers([[b"retry: 5\n\n"], [HELLO], [b"retry: 6\n\n"]])).stream("/") as stream:
        assert stream.retry_ms is None, "nothing was read"
        told = [stream.reconnect().retry_ms, stream.reconnect().retry_ms]
        stream.drop()
        assert [*told, stream.retry_ms] == [5, 5, 6]


# The end


def test_events_that_came_before_the_end_can_be_taken_after_it(serve: Serve) -> None:
    with serve(Answers([[events(1, 2), events(3)]], idle=False)).stream("/") as stream:
        stream.wait_closed()
        assert stream.closed
        assert stream.next_event() == event(1)
        assert list(stream) == [event(2), event(3)]
        with pytest.raises(StreamOver, match="the app has ended the stream\nGET / → 200"):
            stream.next_event()
        assert list(stream) == []


def test_no_event_comes_to_a_client_that_has_left(serve: Serve) -> None:
    answers = Answers([[events(1, 2)]])
    with serve(answers).stream("/") as stream:
        stream.next_event()
        stream.drop()
        stream.drop()
        for wait in (stream.next_event, lambda: list(stream)):
            with pytest.raises(StreamOver, match=r"has left this stream, and reconnect\(\) opens it again"):
                wait()
    assert answers.over == 1


def test_an_answer_that_is_no_stream_comes_whole(serve: Serve) -> None:
    answers = Answers([[b"x" * HIGH_WATER, b"y"]], 403, {"Content-Type": "text/html"}, idle=False)
    with serve(answers).stream("/") as stream:
        assert (stream.status, len(stream.body), stream.closed) == (403, HIGH_WATER + 1, True)
        with pytest.raises(
            StreamOver, match=r"an EventSource would give up\nGET / → 403 .*text/html"
        ) as caught:
            stream.next_event()
        assert str(caught.value).endswith("xxxy'")
        with pytest.raises(StreamOver):
            list(stream)


def test_a_stream_that_is_packed_is_told(serve: Serve) -> None:
    headers = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
    with serve(Answers([[b"\x1f\x8b"]], headers=headers, idle=False)).stream("/") as stream:
        stream.wait_closed()
        with pytest.raises(StreamOver, match="packed with 'gzip'"):
            stream.next_event()
        assert stream.body == b"\x1f\x8b"


def test_a_head_brings_headers_and_no_events(serve: Serve) -> None:
    answers = Answers([[events(1)]], idle=False)
    with serve(answers).stream("/", method="head") as stream:
        stream.wait_closed()
        assert (stream.status, stream.body, list(stream)) == (200, b"", [])
        with pytest.raises(StreamOver, match="a HEAD brings no events"):
            stream.next_event()
    assert answers.asked == [("HEAD", "")]


def test_a_head_whose_body_has_no_end_is_told(serve: Serve) -> None:
    answers = Answers([itertools.repeat(events(1))])
    with (
        serve(answers).stream("/", method="HEAD") as stream,
        pytest.raises(StreamTimeout, match=r"the app did not end the stream within 0\.2 s"),
    ):
        stream.wait_closed(SOON_S)
    assert answers.over == 1


# Waiting


def test_a_time_out_says_what_came_so_far(serve: Serve) -> None:
    with serve(Answers([[events(1) + b"data: 2"]])).stream("/events?a=1") as stream:
        with pytest.raises(StreamTimeout) as caught:
            stream.events(2, timeout=0.5)
        told = str(caught.value).splitlines()
        assert told[0] == "1 of 2 events came within 0.5 s"
        assert told[1].startswith("GET /events?a=1 → 200")
        assert told[1].endswith(", open, 1 events taken, last_event_id='1'")
        assert told[2] == f"the last event: {event(1)}"
        assert told[3] == f"the bytes: {events(1) + b'data: 2'!r}"
        assert told[4] == "the app is here:"
        assert __file__.replace("test_streams", "apps") in str(caught.value)
        assert isinstance(caught.value, AssertionError)
        assert isinstance(caught.value, TimeoutError)


def test_a_stream_may_be_looked_at_before_its_first_bytes(serve: Serve) -> None:
    with serve(Answers([[]])).stream("/", wait_open=False) as stream:
        assert stream.status == 200
        with pytest.raises(StreamTimeout, match="no event came"):
            stream.next_event(SOON_S)


def test_an_app_is_ahead_of_a_slow_client_by_some_pieces_only(serve: Serve) -> None:
    sent = 0

    def endless() -> itertools.chain[bytes]:
        def count(number: int) -> bytes:
            nonlocal sent
            sent += 1
            return b"data: %d %s\n\n" % (number, b"." * 1000)

        return itertools.chain(map(count, itertools.count(1)))

    with serve(Answers([endless()])).stream("/") as stream:
        for number in range(1, 500):
            assert stream.next_event().data.startswith(f"{number} ")
            assert sent <= number + HIGH_WATER // 1000 + 2


# What the app raises


def test_what_the_app_raises_is_raised_after_the_events_before_it(serve: Serve) -> None:
    with serve(Answers([fails_after(events(1, 2))])).stream("/events") as stream:
        assert stream.next_event() == event(1)
        assert stream.next_event() == event(2)
        with pytest.raises(KeyError, match="of the app") as caught:
            stream.next_event()
        assert caught.value.__notes__ == ["raised by the app while it answered GET /events"]
        assert "fails_after" in [entry.name for entry in caught.traceback]
        with pytest.raises(StreamOver):
            stream.next_event()


def test_what_the_app_raises_is_raised_once_by_whichever_waits(serve: Serve) -> None:
    client = serve(Answers([fails_after(HELLO), fails_after(HELLO), fails_after(), [HELLO]]))
    stream = client.stream("/")
    with pytest.raises(KeyError):
        stream.wait_closed()
    stream.wait_closed()
    wait_for_end(stream.reconnect())
    with pytest.raises(KeyError):
        stream.drop()
    stream.drop()
    with pytest.raises(KeyError):
        stream.reconnect().next_event()
    stream.reconnect()


# The end of the client


def test_a_client_drops_what_it_left_open(serve: Serve) -> None:
    answers = Answers([[HELLO]])
    client = serve(answers)
    streams = [client.stream("/") for _ in range(5)]
    client.close()
    assert all(stream.closed for stream in streams)
    assert answers.over == 5
    client.close()


def test_what_fails_at_the_end_of_a_block_does_not_hide_what_failed_in_it(serve: Serve) -> None:
    client = serve(Answers([fails_after(HELLO), fails_after(HELLO)]))

    def use(divisor: int) -> None:
        with client.stream("/") as stream:
            wait_for_end(stream)
            _ = 1 / divisor

    with pytest.raises(ZeroDivisionError) as caught:
        use(0)
    assert "KeyError('of the app')" in caught.value.__notes__[0]
    with pytest.raises(KeyError):
        use(1)
