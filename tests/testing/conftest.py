"""The two kinds of apps, for facts that hold for the clients of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from penstock.testing import ASGIClient, WSGIClient
from tests.support.wait import wait_for
from tests.testing.apps import Answers, threads_of_clients

Serve = Callable[..., WSGIClient | ASGIClient]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = set(threads_of_clients())
    yield
    wait_for(lambda: set(threads_of_clients()) <= before, what=lambda: f"an end of {threads_of_clients()}")


@pytest.fixture(params=["wsgi", "asgi"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Makes a client of an app that answers so."""
    with ExitStack() as stack:

        def make(answers: Answers, **options: Any) -> WSGIClient | ASGIClient:
            if request.param == "wsgi":
                return stack.enter_context(WSGIClient(answers.wsgi, **options))
            return stack.enter_context(ASGIClient(answers.asgi, **options))

        yield make
