"""Stores messages, and finds out whether they were stored when the answer is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from nats.errors import Error

from penstock.errors import AppendUnsure, LogError
from penstock.log.nats.errors import OTHERS_WROTE, ConnectionLost, NoResponders, Refused
from penstock.log.nats.stream import Message, Stream

_PAUSE_S = 0.05  # between tries to find out


async def store(
    stream: Stream, messages: Sequence[Message], after: int, deadline: float, *, explain: bool
) -> Refused | None:
    """Store messages after a place, all or none.

    Args:
        stream: where.
        messages: what; the last one counts, and those before it point to it.
        after: the place of the newest message that there is, as far as is known.
        deadline: until when (of ``time.monotonic``) to go on to find out what became of them.
        explain: find out why, if the last is refused because others before it were.

    Returns:
        None once they are stored; else why they are not and never will be.

    Raises:
        AppendUnsure: if nobody can say.
        Exception: of other kinds, if they certainly are not stored and never will be.
    """
    sent = False
    while True:
        try:
            await stream.publish(messages, after, explain=explain)
            return None
        except Refused as error:
            if not sent:
                if error.number in OTHERS_WROTE:
                    return error
                raise
            cause: Exception = error
        except ConnectionLost as error:
            cause, sent = error, True
        except (LogError, NoResponders, Error, OSError) as error:
            if not sent:
                raise
            cause = error
        try:
            async with asyncio.timeout(max(stream.answer_s, deadline - time.monotonic())):
                stored = await _find(stream, messages, after)
            if stored is not None:
                return None if stored else Refused({})
        except (LogError, NoResponders, Refused, ConnectionLost, Error, OSError) as error:
            cause = error
        if time.monotonic() > deadline:
            raise AppendUnsure(
                "the server was sent the events and did not answer, and cannot be asked now whether they are "
                f"stored ({cause}): publish them again with a key once it is back"
            ) from cause
        await asyncio.sleep(_PAUSE_S)


async def _find(stream: Stream, messages: Sequence[Message], after: int) -> bool | None:
    """Whether messages are stored in the places after one; None if they still may be."""
    entry = messages[-1].entry
    last, *found = await stream.get_all(
        [{"last_by_subj": ">"}, *({"seq": after + 1 + index} for index in range(len(messages)))]
    )
    if found[-1] is not None:
        return found[-1].id == entry.id
    for other in found:
        if other is not None and other.id != entry.id:
            return False
    if last is None or last.place < after:  # the stream is another: they follow nothing that is there
        return False
    return None
