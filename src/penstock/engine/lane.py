"""The pushed streams of an audience that have all that there is.

All of them are at the same place, so it is the lane that has a position, and a delivery touches nothing
of a stream but its descriptor. That is most of what makes a delivery cheap: with thousands of streams,
the objects of each are no longer in any cache when the next event comes.
"""

from __future__ import annotations

from os import write
from typing import Protocol

from penstock.core.wire import Block
from penstock.threads import sleep

BREATH_WRITES, BREATH_S = 64, 1e-6  # see ``send``
GONE = -1  # in the place of a number of bytes: the client is no more


class Runner(Protocol):
    """A stream in a lane."""

    def fall_behind(self, block: Block, seq: int, sent: int) -> None:
        """Its client took only so many bytes of a block, or is ``GONE``. It is no longer in the lane.

        Args:
            block: what was sent.
            seq: where the stream would be with all of it.
            sent: how many bytes of it were taken.
        """

    def step_out(self) -> None:
        """Leave the lane, to go on alone."""


class Lane:
    """Streams that are sent the same bytes.

    Args:
        chunked: whether in chunked coding.
    """

    __slots__ = ("chunked", "runners", "seq")

    def __init__(self, chunked: bool) -> None:
        self.chunked = chunked
        self.runners: dict[int, Runner] = {}  # by descriptor
        self.seq = 0  # of what is theirs, they have all up to here

    def send(self, block: Block, seq: int) -> tuple[int, int]:
        """Send a block to all; who does not take it whole falls behind.

        Every write gives Python's lock up and has it back before a thread that waits for it has awoken: so
        5,000 of them kept requests waiting for 300 ms. Now and then this thread sleeps, as short as can be,
        and those waited 20 ms.

        Args:
            block: what follows the lane's position.
            seq: its position with it.

        Returns:
            How many took it whole, and the number of its bytes.
        """
        data = block.chunks if self.chunked else block.wire
        size = len(data)
        behind: list[tuple[int, int]] = []
        for count, fd in enumerate(self.runners):
            if count % BREATH_WRITES == BREATH_WRITES - 1:
                sleep(BREATH_S)
            try:
                sent = write(fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = GONE
            if sent != size:
                behind.append((fd, sent))
        self.seq = seq
        for fd, sent in behind:
            self.runners.pop(fd).fall_behind(block, seq, sent)
        return len(self.runners), size
