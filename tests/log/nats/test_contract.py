"""The contract of a log, proved for the one in NATS."""

from __future__ import annotations

import pytest

from penstock.testing import LOG_CHECKS
from tests.support.nats import NatsServer, fresh, need_nats

pytestmark = need_nats


@pytest.mark.parametrize("name", LOG_CHECKS)
def test_contract(server: NatsServer, name: str) -> None:
    LOG_CHECKS[name](fresh(server))
