"""Publishers and a follower at work while things go wrong; see ``tests.log.postgres.load``."""

from __future__ import annotations

from tests.log.postgres.load import Load as _Load
from tests.support.wait import wait_for


class Load(_Load):
    def until_refused(self) -> None:
        """Wait until somebody is told that it cannot be."""
        told = len(self.refused | self.unsure)
        wait_for(lambda: len(self.refused | self.unsure) > told, what="a publisher is told of it")
