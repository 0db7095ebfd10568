from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.redis import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One for a whole module; its tests do not kill it."""
    with RedisServer("--appendonly", "yes") as server:
        yield server
