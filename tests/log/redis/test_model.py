"""The log in Redis against a model, in whatever order things are done.

A crash is what a process leaves that was killed: its connections are gone, and nothing was tidied up.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from penstock.log import open_log
from penstock.log.base import Log
from tests.log.test_model import LogMachine
from tests.support.redis import RedisServer, need_redis

pytestmark = need_redis


class RedisMachine(LogMachine):
    server: RedisServer

    def begin(self) -> None:
        self.url = self.server.url()

    def make(self) -> Log:
        return open_log(self.url)

    def crash(self) -> None:
        self.server.ask("CLIENT", "KILL", "TYPE", "normal")
        for log in self.logs:
            log.close()


@pytest.fixture
def machine(server: RedisServer) -> type[RedisMachine]:
    RedisMachine.server = server
    return RedisMachine


def test_the_log_does_what_the_model_does(machine: type[RedisMachine]) -> None:
    few = settings(
        max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    run_state_machine_as_test(machine, settings=few)
