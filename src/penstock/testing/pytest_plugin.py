"""Fixtures for pytest.

A test suite asks for them in its topmost ``conftest.py``, or with ``-p penstock.testing.pytest_plugin``::

    pytest_plugins = ["penstock.testing.pytest_plugin"]

There is no entry point that loads them by itself: with one, every run of pytest wherever Penstock is
installed would import it, asked or not, and before a measurement of coverage begins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from penstock.bus import Penstock
from penstock.testing.asgi_clients import ASGIClient
from penstock.testing.wsgi import WSGIClient

__all__ = ["penstock_bus", "penstock_client", "penstock_url"]


@pytest.fixture
def penstock_url(tmp_path: Path) -> str:
    """A log of this test's own: a SQLite file in its ``tmp_path``. Override it to use another."""
    return f"sqlite:///{tmp_path / 'penstock.db'}"


@pytest.fixture
def penstock_bus(penstock_url: str) -> Iterator[Penstock]:
    """A ``Penstock`` on the log of this test, closed at its end."""
    with Penstock(penstock_url) as bus:
        yield bus


@pytest.fixture
def penstock_client() -> Iterator[Callable[..., WSGIClient | ASGIClient]]:
    """Makes clients: ``penstock_client(app)``, a ``WSGIClient`` or an ``ASGIClient`` as the app needs it.

    What they have left open is dropped at the end of the test. Further arguments are those of the client.
    """
    with ExitStack() as stack:

        def make(app: Callable[..., Any], **options: Any) -> WSGIClient | ASGIClient:
            if is_asgi(app):
                return stack.enter_context(ASGIClient(app, **options))
            return stack.enter_context(WSGIClient(app, **options))

        yield make


def is_asgi(app: Callable[..., Any]) -> bool:
    """Whether an app takes ``(scope, receive, send)``, and not ``(environ, start_response)``."""
    takes_three, takes_two = _takes(app, 3), _takes(app, 2)
    if takes_three != takes_two:
        return takes_three
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def _takes(app: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(app).bind(*range(count))
    except (TypeError, ValueError):  # it does not, or it is written in C
        return False
    return True
