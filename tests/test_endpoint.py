"""What the ready-made endpoints have in common: denied unless allowed."""

from __future__ import annotations

import asyncio
import logging

import pytest

from penstock import Options
from penstock.endpoint import (
    Denied,
    aallow,
    allow,
    check_authorize,
    denial,
    named_channels,
    value_for,
)
from penstock.errors import ConfigError

REQUEST = object()


def opens(request: object, channel: str) -> bool:
    assert request is REQUEST
    return channel.startswith("open")


async def opens_later(request: object, channel: str) -> bool:
    await asyncio.sleep(0)
    return opens(request, channel)


def test_doubles_are_one_and_the_order_stays() -> None:
    assert named_channels(["b", "a", "b"]) == ["b", "a"]


@pytest.mark.parametrize(
    "names", [[], [""], ["a*"], ["room/*"], ["**"], ["penstock.kicks"], ["a b"], ["a", ""]]
)
def test_what_no_client_may_name_is_a_bad_request(names: list[str]) -> None:
    with pytest.raises(Denied) as caught:
        named_channels(names)
    assert caught.value.status == 400


def test_one_channel_that_is_refused_refuses_the_whole() -> None:
    allow(opens, REQUEST, ["open/1", "open/2"])
    with pytest.raises(Denied, match="'secret'") as caught:
        allow(opens, REQUEST, ["open/1", "secret"])
    assert caught.value.status == 403


def test_a_coroutine_function_decides_where_it_can_be_awaited() -> None:
    async def ask() -> None:
        for authorize in (opens, opens_later):
            await aallow(authorize, REQUEST, ["open/1"])
            with pytest.raises(Denied):
                await aallow(authorize, REQUEST, ["open/1", "secret"])

    asyncio.run(ask())


def test_what_nobody_awaits_allows_nothing() -> None:
    """A coroutine is true, whatever it would give."""
    with pytest.raises(ConfigError, match="write 'def'"):
        check_authorize(opens_later, may_wait=False)
    with pytest.raises(ConfigError, match="write 'def'"):
        allow(lambda request, channel: opens_later(request, channel), REQUEST, ["secret"])


def test_without_a_word_on_who_may_read_all_are_refused_and_a_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "penstock.endpoint"):
        nobody = check_authorize(None, may_wait=True)
    assert "without authorize= refuses every channel" in caplog.text
    with pytest.raises(Denied):
        allow(nobody, REQUEST, ["open/1"])


def test_what_cannot_be_called_is_refused_when_the_endpoint_is_made() -> None:
    with pytest.raises(ConfigError, match="authorize is called with"):
        check_authorize(True, may_wait=True)  # type: ignore[arg-type]


def test_a_denial_is_plain_text_that_no_cache_keeps() -> None:
    reply = denial(Denied(403, "No."), Options(cors_origins=["https://app.example"]), "https://app.example")
    assert (reply.status, reply.body) == (403, b"No.\n")
    headers = dict(reply.headers)
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Access-Control-Allow-Origin"] == "https://app.example"


def test_an_argument_is_a_value_or_made_of_the_request() -> None:
    assert value_for(REQUEST, 7) == 7
    assert value_for(REQUEST, lambda request: request is REQUEST) is True
