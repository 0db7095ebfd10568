"""The parser against the standard: https://html.spec.whatwg.org/multipage/server-sent-events.html

Each case is parsed whole, by one byte, by two and by three, with LF, CR and CRLF: all must agree.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import parser as parser_module
from penstock.core.parser import Message, Parser
from tests.support.strategies import cut, cuts, many

CUTS = {"whole": 1 << 30, "by 1": 1, "by 2": 2, "by 3": 3}
LINE_ENDS = {"LF": b"\n", "CR": b"\r", "CRLF": b"\r\n"}


def parse(pieces: list[bytes], last_event_id: str = "") -> tuple[list[Message], Parser]:
    parser = Parser(last_event_id)
    return [message for piece in pieces for message in parser.feed(piece)], parser


def by(size: int, data: bytes) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


# name: (stream, with LF; [(event, data, id)]; the id a client comes back with; the retry)
CASES: dict[str, tuple[str | bytes, list[tuple[str, str, str]], str, int | None]] = {
    # the standard's own examples
    "three messages": (
        "data: This is the first message.\n\n"
        "data: This is the second message, it\ndata: has two lines.\n\n"
        "data: This is the third message.\n\n",
        [
            ("message", "This is the first message.", ""),
            ("message", "This is the second message, it\nhas two lines.", ""),
            ("message", "This is the third message.", ""),
        ],
        "",
        None,
    ),
    "types": (
        "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [("add", "73857293", ""), ("remove", "2153", ""), ("add", "113411", "")],
        "",
        None,
    ),
    "stocks": (
        "data: YHOO\ndata: +2\ndata: 10\n\n",
        [("message", "YHOO\n+2\n10", "")],
        "",
        None,
    ),
    "four blocks": (
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")],
        "",
        None,
    ),
    "data without a colon, and an incomplete block": (
        "data\n\ndata\ndata\n\ndata:",
        [("message", "", ""), ("message", "\n", "")],
        "",
        None,
    ),
    "one space after the colon is not data": (
        "data:test\n\ndata: test\n\n",
        [("message", "test", ""), ("message", "test", "")],
        "",
        None,
    ),
    # bytes
    "a BOM at the start": ("\ufeffdata: a\n\n", [("message", "a", "")], "", None),
    "one BOM only": ("\ufeff\ufeffdata: a\n\ndata: b\n\n", [("message", "b", "")], "", None),
    "a BOM later is a character": (
        "data: \ufeffa\n\n\ufeffdata: b\n\n",
        [("message", "\ufeffa", "")],
        "",
        None,
    ),
    "a BOM alone": ("\ufeff", [], "", None),
    "bytes that are no UTF-8": (
        b"data: a\xffb\xc3\ndata: \xe2\x80x\xed\xa0\x80\n\n",
        [("message", "a�b�\n�x���", "")],
        "",
        None,
    ),
    "characters of all lengths": (
        "data: é€\U0001f600\n\n",
        [("message", "é€\U0001f600", "")],
        "",
        None,
    ),
    "NUL in data": ("data: a\0b\n\n", [("message", "a\0b", "")], "", None),
    "characters that look like line ends": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n",
        [("message", "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg", "")],
        "",
        None,
    ),
    # fields
    "comments": (":\n: data: x\n:data: y\ndata: z\n:\n\n", [("message", "z", "")], "", None),
    "a keep-alive between": ("data: a\n: still here\ndata: b\n\n", [("message", "a\nb", "")], "", None),
    "unknown names": (
        "Data: a\nDATA: b\n data: c\ndata : d\nfoo: e\ndatas: f\n: g\ndat\ndata: h\n\n",
        [("message", "h", "")],
        "",
        None,
    ),
    "only one leading space goes": ("data:  a \n\n", [("message", " a ", "")], "", None),
    "a tab is no space": ("data:\ta\n\n", [("message", "\ta", "")], "", None),
    "colons in the value": ("data: a:b: c\ndata::\n\n", [("message", "a:b: c\n:", "")], "", None),
    "the last type counts": ("event: a\nevent: b\ndata: x\n\n", [("b", "x", "")], "", None),
    "an empty type is message": ("event: a\nevent\ndata: x\n\n", [("message", "x", "")], "", None),
    "a type lasts for its block": (
        "event: a\n\ndata: x\n\nevent: a\ndata: y\n\ndata: z\n\n",
        [("message", "x", ""), ("a", "y", ""), ("message", "z", "")],
        "",
        None,
    ),
    # ids
    "an id lasts": (
        "id: 1\ndata: a\n\ndata: b\n\n",
        [("message", "a", "1"), ("message", "b", "1")],
        "1",
        None,
    ),
    "an id after the data": ("data: a\nid: 1\n\n", [("message", "a", "1")], "1", None),
    "an id of a block without data": ("id: 1\n\ndata: a\n\n", [("message", "a", "1")], "1", None),
    "an id and no data at all": ("id: 1\n\n", [], "1", None),
    "an id with NUL is ignored": ("id: 1\n\nid: 2\0\ndata: a\n\n", [("message", "a", "1")], "1", None),
    "an empty id resets": ("id: 1\n\nid\n\ndata: a\n\n", [("message", "a", "")], "", None),
    "the id 0 is an id": ("id: 0\ndata: a\n\n", [("message", "a", "0")], "0", None),
    "an id of an incomplete block": ("id: 1\n\nid: 2\ndata: a\n", [], "1", None),
    # retry
    "retry": ("retry: 5\n\n", [], "", 5),
    "retry needs no complete block": ("retry: 5\n", [], "", 5),
    "the last retry counts": ("retry: 5\nretry:6\n", [], "", 6),
    "a retry of other than digits": (
        "retry: 5\nretry: 6s\nretry: -7\nretry: 8.0\nretry:\nretry\nretry:  9\nretry: \u0661\n",
        [],
        "",
        5,
    ),
    "a retry with zeros": ("retry: 007\n", [], "", 7),
    "a huge retry is ignored": ("retry: 5\nretry: " + "9" * 5_000 + "\n", [], "", 5),
    # blocks
    "a block of nothing": ("\n\n\nevent: a\n\n:\n\n", [], "", None),
    "an incomplete line": ("data: a\n\ndata: b", [("message", "a", "")], "", None),
    "an incomplete block": ("data: a\n\ndata: b\n", [("message", "a", "")], "", None),
    "nothing": ("", [], "", None),
}  # fmt: skip


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("name", CASES)
def test_the_standard(name: str, size: str, line_end: str) -> None:
    stream, messages, last_event_id, retry_ms = CASES[name]
    data = stream.encode() if isinstance(stream, str) else stream
    got, parser = parse(by(CUTS[size], data.replace(b"\n", LINE_ENDS[line_end])))
    assert got == [Message(*message) for message in messages]
    assert (parser.last_event_id, parser.retry_ms) == (last_event_id, retry_ms)


@pytest.mark.parametrize("size", CUTS)
def test_line_ends_may_be_mixed(size: str) -> None:
    stream = b"data: a\rdata: b\ndata: c\r\ndata: d\n\rdata: e\r\r\ndata: f\r\n\rdata: g\n\r\n"
    got, _ = parse(by(CUTS[size], stream))
    assert [message.data for message in got] == ["a\nb\nc\nd", "e", "f", "g"]


def test_a_message_is_there_as_soon_as_its_last_byte_is() -> None:
    for line_end in (b"\n", b"\r"):
        *first, last = by(1, b"data: a" + line_end * 2)
        parser = Parser()
        assert [parser.feed(piece) for piece in first] == [[]] * len(first)
        assert parser.feed(last) == [Message("message", "a", "")]


def test_a_client_that_comes_back_keeps_its_id() -> None:
    got, parser = parse([b"data: a\n\n"], last_event_id="e:7")
    assert got == [Message("message", "a", "e:7")]
    assert parser.last_event_id == "e:7"


def reference(stream: bytes) -> tuple[list[Message], str, int | None]:
    """The standard's algorithm on the whole stream, as it is written there."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _incomplete = re.split("\r\n|\n|\r", text)
    messages: list[Message] = []
    data, event, buffered_id, last_id, retry = "", "", "", "", None
    for line in lines:
        if line == "":
            last_id = buffered_id
            if data != "":
                messages.append(Message(event or "message", data[:-1], last_id))
            data = event = ""
            continue
        if line[0] == ":":
            continue
        name, value = line.split(":", 1) if ":" in line else (line, "")
        value = value[1:] if value[:1] == " " else value
        if name == "event":
            event = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            buffered_id = value
        elif name == "retry" and value and not value.strip("0123456789") and len(value) <= 10:
            retry = int(value)
    return messages, last_id, retry


pieces = st.sampled_from(
    [
        b"data", b"data:", b"data: x", b"id", b"id: 1", b"id: \0", b"event: e", b"event", b"retry: 12",
        b"retry: x", b":", b": c", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\0", b"\xef\xbb\xbf",
        b"\xef\xbb", b"\xbf", b"\xff", b"\xe2\x80\xa8", b"\xc2\x85", b"\xf0\x9f\x98\x80", b"\xf0\x9f",
    ]
)  # fmt: skip
streams = st.lists(st.one_of(pieces, st.binary(max_size=6)), max_size=40).map(b"".join)


@given(streams, st.data())
@many
def test_any_bytes_in_any_cut_are_what_the_standard_says(stream: bytes, data: st.DataObject) -> None:
    at = data.draw(cuts(len(stream)))
    for cut_pieces in (cut(stream, at), by(1, stream), by(2, stream)):
        got, parser = parse(cut_pieces)
        assert (got, parser.last_event_id, parser.retry_ms) == reference(stream)


@given(st.binary(max_size=400), st.data())
@many
def test_no_bytes_do_harm(stream: bytes, data: st.DataObject) -> None:
    got, _ = parse(cut(stream, data.draw(cuts(len(stream)))))
    assert got == reference(stream)[0]


@pytest.mark.parametrize(
    "endless",
    [b"x", b"data: x\n", b"data\n", b": c\r\n", b"unknown\r", b"id: 1\n", b"\xff", "é".encode(), b"retry"],
)  # fmt: skip
@pytest.mark.parametrize("times", [1, 50])
def test_a_block_without_end_cannot_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, endless: bytes, times: int
) -> None:
    monkeypatch.setattr(parser_module, "MAX_BLOCK_CHARS", 1_000)
    parser = Parser()
    with pytest.raises(ValueError, match="no end"):  # noqa: PT012
        for _ in range(1_100):
            parser.feed(endless * times)


def test_blocks_that_end_may_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser_module, "MAX_BLOCK_CHARS", 1_000)
    parser = Parser()
    for _ in range(100):
        for piece in by(7, b": comment\ndata: " + b"x" * 900 + b"\r\n\r\n"):
            parser.feed(piece)
