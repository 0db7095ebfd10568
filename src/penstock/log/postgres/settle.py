"""What became of an append that was not answered.

The server is asked as soon as it answers again, within a bound. Each append has a random number, so what it
stored is found. If that is nothing, the number is entered among the refused in the same transaction: however
late the append may yet arrive, out of a buffer of the network or of a server that stood still, it will store
nothing. So the answer is certain either way; only who cannot ask remains unsure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from psycopg.pq.abc import PGresult

from penstock import threads
from penstock.errors import AppendUnsure, LogUnavailable, PenstockError
from penstock.log.postgres.errors import of_loss
from penstock.log.postgres.options import Place
from penstock.log.postgres.session import Lost
from penstock.log.postgres.values import read_float8, read_int8, row_of

_PAUSE_S = 0.1  # between tries


class Stored(NamedTuple):
    """What an append has stored.

    Attributes:
        epoch: in which epoch.
        first: its first seq.
        unkeyed: the seqs of events without a key, in their order.
        time: when.
    """

    epoch: str
    first: int
    unkeyed: list[int]
    time: float


def settle(ask: Callable[[], PGresult], lost: Lost, events: int, place: Place, over: threads.Event) -> Stored:
    """Find out.

    Args:
        ask: asks the server.
        lost: how the connection was lost.
        events: how many were to be stored.
        place: the log.
        over: set when the log is closed.

    Raises:
        LogUnavailable: nothing was stored, and will not be.
        AppendUnsure: nobody can say.
    """
    deadline = time.monotonic() + place.timeout_s
    while True:
        try:
            answer = ask()
            break
        except (Lost, PenstockError) as error:
            passing = isinstance(error, Lost | LogUnavailable) and not over.is_set()
            if not passing or time.monotonic() > deadline:
                raise AppendUnsure(
                    f"{place.shown} took {events} event(s) and gave no answer ({lost}), and could not be "
                    f"asked about them within {place.timeout_s:g} s: they are stored or not. Publish them "
                    "again with a key"
                ) from error
        over.wait(_PAUSE_S)
    if not answer.ntuples:
        raise of_loss(lost, f"store {events} event(s)", place.shown) from lost
    epoch, first, at, _ = row_of(answer)
    rows = [row_of(answer, row) for row in range(answer.ntuples)]
    unkeyed = [read_int8(seq)[0] for _, seq, _, keyed in rows if keyed != b"\1"]
    return Stored(epoch.decode(), read_int8(first)[0], unkeyed, read_float8(at)[0])
