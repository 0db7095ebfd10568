"""Who uses a log while its faults are tried: threads that publish and follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from penstock.core.event import Event
from penstock.core.record import Record
from penstock.errors import AppendUnsure, Closed, LogUnavailable
from penstock.log.base import Log
from penstock.testing.storage import everything, numbers
from tests.support.wait import wait_for

_PAUSE_S = 0.01  # between tries while the log is away


class Follower:
    """A thread that follows a log as the engine does, keeps what it got in each epoch, and closes the log."""

    def __init__(self, log: Log) -> None:
        self.got: dict[str, list[Record]] = {}
        self.away = 0
        self._log = log
        self._over = False
        self._thread = threading.Thread(target=self._run)

    @property
    def epochs(self) -> list[str]:
        return list(self.got)

    @property
    def seqs(self) -> list[int]:
        """What it got in the newest epoch."""
        return numbers(self.got[self.epochs[-1]]) if self.got else []

    def until(self, epochs: int, seqs: list[int]) -> None:
        """Wait until it has seen so many epochs, and these in the last."""
        wait_for(
            lambda: len(self.got) == epochs and self.seqs == seqs,
            what=lambda: f"{epochs} epochs, {seqs}; there were {len(self.got)}, {self.seqs}",
        )

    def until_it_has(self, records: list[Record]) -> None:
        """Wait until it has just these in their epoch, however many epochs there were."""
        wait_for(
            lambda: self.got.get(records[0].epoch) == records,
            what=lambda: f"{numbers(records)} are followed; in the last of {len(self.got)}: {self.seqs}",
        )

    def _run(self) -> None:
        after, epoch = 0, ""
        while not self._over:
            try:
                records = self._log.read(after, 1000)
                if records and records[0].epoch == epoch:
                    self.got[epoch] += records
                    after = records[-1].seq
                    continue
                bounds = self._log.bounds()
                if bounds.epoch != epoch:
                    after, epoch = bounds.first - 1, bounds.epoch
                    self.got[epoch] = []
                elif not records:
                    self._log.wait(after)
            except LogUnavailable:
                self.away += 1
                time.sleep(_PAUSE_S)
            except Closed:
                return

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._log.close()
        self._thread.join()


class Publisher:
    """A thread that appends again and again, and keeps what it was told of each."""

    def __init__(self, log: Log, name: str) -> None:
        self.acked: list[tuple[str, int]] = []
        self.refused: list[str] = []
        self.unsure: list[str] = []
        self.count = 0
        self._log = log
        self._name = name
        self._over = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over:
            self.count += 1
            data = [f"{self._name} {self.count} {part}" for part in range(1 + self.count % 3)]
            try:
                appended = self._log.append([Event("check", text) for text in data])
                self.acked += zip(data, appended.seqs, strict=True)
            except LogUnavailable:
                self.refused += data
                time.sleep(_PAUSE_S)
            except AppendUnsure:
                self.unsure += data

    def until_more(self, count: int = 50) -> None:
        """Wait until so many more are stored."""
        before = len(self.acked)
        wait_for(lambda: len(self.acked) > before + count, what=lambda: f"{self._name} publishes more")

    def stop(self) -> None:
        self._over = True
        self._thread.join()

    def check(self, records: list[Record]) -> None:
        """All that it was told is true of the log in the end."""
        found = {record.data: record.seq for record in records if record.data.startswith(self._name)}
        assert len(found) == len([r for r in records if r.data.startswith(self._name)]), (
            "nothing is there twice"
        )
        assert [(data, found.get(data)) for data, _ in self.acked] == self.acked, "what was stored is there"
        assert not found.keys() & {*self.refused}, "what was refused is not there"
        assert found.keys() <= {data for data, _ in self.acked} | {*self.unsure}

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def data_of(log: Log) -> list[str]:
    return [record.data for record in everything(log)]


def until_it_works(use: Callable[[], object]) -> None:
    """Try until the log is back."""

    def works() -> bool:
        try:
            use()
        except LogUnavailable:
            return False
        return True

    wait_for(works, what="the log is back")
