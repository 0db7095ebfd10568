"""The bytes on the wire, to the byte; and what a parser makes of them."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Event, Gap, GapReason, Position
from penstock.core import wire
from penstock.core.parser import Message, Parser
from penstock.core.wire import Block, Entry, Item
from tests.support.strategies import EPOCH, channels, cut, cuts, events, many, record, record_of, texts

HERE = Position("e", 5)


def event_bytes(data: str, **more: object) -> bytes:
    return wire.encode_record(record_of(Event("chat", data, **more), seq=7))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "on_the_wire"),
    [
        ("hi", b"data: hi\n\n"),
        ("", b"data: \n\n"),
        (" hi", b"data:  hi\n\n"),
        ("a\nb", b"data: a\ndata: b\n\n"),
        ("a\rb", b"data: a\ndata: b\n\n"),
        ("a\r\nb", b"data: a\ndata: b\n\n"),
        ("a\n\rb", b"data: a\ndata: \ndata: b\n\n"),
        ("a\n", b"data: a\ndata: \n\n"),
        ("\n", b"data: \ndata: \n\n"),
        ("a\u2028b\x85c\x0bd\x0ce", "data: a\u2028b\x85c\x0bd\x0ce\n\n".encode()),
        ("a\u2028b\nc\x85\rd", "data: a\u2028b\ndata: c\x85\ndata: d\n\n".encode()),
        ("\ufeffa", b"data: \xef\xbb\xbfa\n\n"),
        ("a\0b", b"data: a\0b\n\n"),
        ("id: e:9\n\nevent: x", b"data: id: e:9\ndata: \ndata: event: x\n\n"),
    ],
)
def test_the_lines_of_data(data: str, on_the_wire: bytes) -> None:
    assert event_bytes(data) == b"id: k3v9x2ab:7\n" + on_the_wire


def test_the_fields_of_an_event() -> None:
    assert event_bytes("hi", event="said", retry=0, key="k") == (
        b"id: k3v9x2ab:7\nevent: said\nretry: 0\ndata: hi\n\n"
    )


def test_the_notices() -> None:
    gap = Gap(GapReason.MALFORMED, 'x"\n\nevent: forged', HERE)
    assert wire.encode_retry(3000) == b"retry: 3000\n"
    assert wire.encode_position(HERE) == b"id: e:5\nevent: penstock.position\ndata: \n\n"
    assert wire.encode_gap(gap) == (
        b"id: e:5\nevent: penstock.gap\n"
        b'data: {"reason": "malformed", "after": "x\\"\\n\\nevent: forged", "resumes": "e:5"}\n\n'
    )
    assert wire.encode_error("no\n\nsuch") == (
        b'event: penstock.error\ndata: {"message": "no\\n\\nsuch"}\n\n'
    )
    assert wire.encode_record(record(7, "job/é", end=True)) == (
        b'id: k3v9x2ab:7\nevent: penstock.end\ndata: {"channel": "job/\\u00e9"}\n\n'
    )


def test_the_headers_forbid_all_that_holds_events_back() -> None:
    assert dict(wire.HEADERS) == {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
    }


def as_sent(text: str) -> str:
    """Line ends within data arrive as LF: the one thing that the format does not carry."""
    return re.sub("\r\n|\r", "\n", text)


@given(st.lists(events, min_size=1, max_size=4), st.data())
@many
def test_what_is_encoded_is_parsed_whatever_the_cut(sent: list[Event], data: st.DataObject) -> None:
    stream = b"".join(wire.encode_record(record_of(e, seq)) for seq, e in enumerate(sent, 1))
    parser = Parser()
    got: list[Message] = []
    for piece in cut(stream, data.draw(cuts(len(stream)))):
        got += parser.feed(piece)
    assert got == [
        Message(e.event or "message", as_sent(e.data), f"{EPOCH}:{seq}") for seq, e in enumerate(sent, 1)
    ]
    retries = [e.retry for e in sent if e.retry is not None]
    assert parser.retry_ms == (retries[-1] if retries else None)
    assert parser.last_event_id == f"{EPOCH}:{len(sent)}"


@given(texts, channels, st.sampled_from(GapReason))
@many
def test_every_notice_is_one_message_of_our_own(text: str, channel: str, reason: GapReason) -> None:
    gap, end = Gap(reason, text, HERE), record(2, channel, end=True)
    notices = [
        (wire.encode_position(HERE), "penstock.position", None, "e:5"),
        (wire.encode_gap(gap), "penstock.gap", {"reason": reason, "after": text, "resumes": "e:5"}, "e:5"),
        (wire.encode_error(text), "penstock.error", {"message": text}, "e:1"),
        (wire.encode_record(end), "penstock.end", {"channel": channel}, f"{EPOCH}:2"),
    ]
    for sent, event, payload, last_event_id in notices:
        parser = Parser("e:1")
        (message,) = parser.feed(wire.encode_retry(3000) + sent)
        assert message.event == event
        assert (json.loads(message.data) if message.data else None) == payload
        assert (parser.last_event_id, parser.retry_ms) == (last_event_id, 3000)


def test_the_bytes_of_an_entry_are_made_once() -> None:
    entry = Entry(record(1, data="hi"))
    assert entry.wire is entry.wire
    assert entry.wire == wire.encode_record(entry.record)


def test_a_block_is_its_items_joined_once() -> None:
    items: list[Item] = [Entry(record(1)), Gap(GapReason.EXPIRED, "e:1", HERE), HERE, Entry(record(2))]
    block = Block(items)
    assert block.wire == b"".join(map(wire.encode_item, items))
    assert block.wire is block.wire
    assert block.events == 2
    assert Block([]).wire == b""
