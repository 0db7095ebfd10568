"""Waiting that comes to nothing, without waiting for it: a conversation is driven by hand."""

from __future__ import annotations

import pytest

from penstock.testing import StreamTimeout
from penstock.testing.conversation import Conversation, Steps, Wait
from penstock.testing.exchange import Exchange
from penstock.testing.received import Reader
from penstock.testing.request import Request


class Deaf:
    """A call that never ends, whatever it is told."""

    over = False

    def __init__(self, exchange: Exchange, told: list[str]) -> None:
        self.exchange = exchange
        self._told = told

    def leave(self) -> None:
        self._told.append("leave")

    def abandon(self) -> bool:
        self._told.append("abandon")
        return True

    def reap(self) -> None:
        self._told.append("reap")

    def where(self) -> str:
        return "\nthe app is here: nowhere"


class Talk:
    """A conversation with an app that answers what a test says for it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.request = Request.of(
            "/events", method="GET", query=None, headers=None, cookies=None, body=b"", last_event_id="",
            extra=None,
        )  # fmt: skip
        self.talk = Conversation(
            self.request, Reader("", raw=False), self._call, wait_open=True, timeout_s=10.0
        )

    def _call(self, exchange: Exchange) -> Deaf:
        self.exchange = exchange
        return Deaf(exchange, self.told)

    def opened(self) -> Conversation:
        steps = self.talk.open()
        next(steps)
        self.exchange.begin(200, "OK", [("Content-Type", "text/event-stream")])
        steps.send(True)
        self.exchange.bring(b":\n\n")
        with pytest.raises(StopIteration):
            steps.send(True)
        return self.talk


def wait_in_vain(steps: Steps[object], wait: Wait) -> None:
    """Let nothing happen that is waited for."""
    while True:
        assert not wait.done()
        wait = steps.send(False)


def test_an_app_that_does_not_answer_is_told() -> None:
    made = Talk()
    steps = made.talk.open()
    with pytest.raises(StreamTimeout, match="no answer came within 10 s\nGET /events → no answer yet"):
        wait_in_vain(steps, next(steps))
    assert made.told == ["leave", "abandon"]


def test_a_stream_without_first_bytes_is_told_and_why_that_is_a_fault() -> None:
    made = Talk()
    steps = made.talk.open()
    next(steps)
    made.exchange.begin(200, "OK", [("Content-Type", "text/event-stream")])
    with pytest.raises(StreamTimeout, match="no first bytes came within 10 s: a stream should begin with"):
        wait_in_vain(steps, steps.send(True))


def test_an_answer_without_an_end_is_told_if_it_is_no_stream() -> None:
    made = Talk()
    steps = made.talk.open()
    next(steps)
    made.exchange.begin(500, "", [("Content-Type", "text/html")])
    with pytest.raises(StreamTimeout, match="the end of an answer that is no event stream did not come"):
        wait_in_vain(steps, steps.send(True))


def test_an_app_that_does_not_notice_that_its_client_left_is_told_and_stopped() -> None:
    made = Talk()
    steps = made.opened().drop(3.0)
    wait = next(steps)
    assert 2.0 < wait.seconds <= 3.0
    with pytest.raises(StreamTimeout, match="the client left, and 3 s later the app was still") as caught:
        wait_in_vain(steps, wait)
    assert "(here it still does)" in str(caught.value)
    assert str(caught.value).endswith("the app is here: nowhere")
    assert made.told == ["leave", "leave", "abandon"]


def test_nothing_is_waited_for_twice_once_a_drop_has_failed() -> None:
    made = Talk()
    steps = made.opened().drop(3.0)
    with pytest.raises(StreamTimeout):
        wait_in_vain(steps, next(steps))
    with pytest.raises(StopIteration):
        next(made.talk.drop(3.0))
