"""Publishers and a follower at work while things go wrong, and the account that is taken afterwards.

with Load(logs, publishers=3) as load:
    load.until(20)
    server.kill()
    ...
load.check(log)
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from penstock.core.event import Event
from penstock.core.record import Record
from penstock.errors import AppendUnsure, LogUnavailable
from penstock.log.base import Appended, Log
from penstock.testing.storage import everything
from tests.support.wait import wait_for

BATCH = 3


class Load:
    """Threads that append batches, each of one text, and one that follows."""

    def __init__(self, make: Callable[[], Log], publishers: int = 3) -> None:
        self.acked: dict[str, Appended] = {}
        self.refused: set[str] = set()
        self.unsure: set[str] = set()
        self.followed: list[Record] = []
        self.errors: list[BaseException] = []
        self._over = threading.Event()
        works = [*[self._publish] * publishers, self._follow]
        self._threads = [
            threading.Thread(target=self._run, args=(work, number, make()))
            for number, work in enumerate(works)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        if error is None and self.errors:
            raise self.errors[0]

    def until(self, more: int) -> None:
        """Wait until so many more batches are acknowledged."""
        enough = len(self.acked) + more
        wait_for(
            lambda: len(self.acked) >= enough or self.errors, 60, what=f"{enough} batches are acknowledged"
        )

    def until_refused(self) -> None:
        """Wait until somebody is told that it cannot be."""
        told = len(self.refused | self.unsure)
        wait_for(lambda: len(self.refused | self.unsure) > told, what="a publisher is told of it")

    def until_followed(self) -> None:
        """Wait until the follower has what is acknowledged by now."""
        last = max(appended.seqs[-1] for appended in list(self.acked.values()))
        wait_for(
            lambda: self.errors or (self.followed and self.followed[-1].seq >= last),
            60,
            what=f"the follower comes to {last}",
        )

    def check(self, log: Log) -> None:
        """What was acknowledged is there once, whole and where it was said; what was refused is not."""
        records = everything(log)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert {record.epoch for record in records} == {log.bounds().epoch}
        by_text = Counter(record.data for record in records)
        for text, appended in self.acked.items():
            assert by_text[text] == BATCH, f"{text} is there {by_text[text]} times"
            assert [records[seq - 1].data for seq in appended.seqs] == [text] * BATCH
        assert not self.refused & by_text.keys(), "what was refused is not stored"
        assert all(by_text[text] in (0, BATCH) for text in self.unsure), "whole or not at all"
        assert by_text.keys() <= self.acked.keys() | self.unsure
        seen = {record.seq: record for record in self.followed}
        assert len(seen) == len(self.followed), "the follower saw nothing twice"
        for record in self.followed:
            assert record[1:] == records[record.seq - 1][1:]

    def _run(self, work: Callable[[int, Log], None], number: int, log: Log) -> None:
        try:
            work(number, log)
        except BaseException as error:
            self.errors.append(error)

    def _publish(self, number: int, log: Log) -> None:
        turn = 0
        while not self._over.is_set():
            turn += 1
            text = f"{number} {turn}"
            try:
                self.acked[text] = log.append([Event("check", text)] * BATCH)
            except LogUnavailable:
                self.refused.add(text)
                self._over.wait(0.02)
            except AppendUnsure:
                self.unsure.add(text)

    def _follow(self, number: int, log: Log) -> None:
        after = 0
        while not self._over.is_set():
            with contextlib.suppress(LogUnavailable):
                records = log.read(after, 1000)
                if records:
                    assert records[0].seq == after + 1
                    self.followed += records
                    after = records[-1].seq
                    continue
                log.wait(after)
                continue
            self._over.wait(0.02)
