"""The log in NATS against a model, in whatever order things are done; see ``tests.log.test_model``."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from penstock.log.base import Log
from tests.log import test_model
from tests.support.nats import NatsServer, need_nats, new_stream, open_nats


class NatsMachine(test_model.LogMachine):
    """A crash is ``kill -9`` of the server, and a new start with its data."""

    server: NatsServer

    def begin(self) -> None:
        self.url = f"{self.server.url}/{new_stream()}"

    def make(self) -> Log:
        return open_nats(self.url)

    def crash(self) -> None:
        self.server.kill()
        self.server.start()
        for log in self.logs:
            log.close()


@pytest.fixture(scope="module", autouse=True)
def _server(server: NatsServer) -> None:
    NatsMachine.server = server


TestNatsLog = need_nats(NatsMachine.TestCase)
TestNatsLog.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
