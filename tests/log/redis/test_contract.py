"""The contract of a log, proved for the one in Redis."""

from __future__ import annotations

from functools import partial

import pytest

from penstock.log import open_log
from penstock.testing import LOG_CHECKS
from penstock.testing.storage import Fresh, Opener
from tests.support.redis import RedisServer, need_redis

pytestmark = need_redis


def storage_in(server: RedisServer) -> Fresh:
    def fresh() -> Opener:
        return partial(open_log, server.url())

    return fresh


@pytest.mark.parametrize("name", LOG_CHECKS)
def test_contract(name: str, server: RedisServer) -> None:
    LOG_CHECKS[name](storage_in(server))
