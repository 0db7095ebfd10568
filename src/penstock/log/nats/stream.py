"""The stream in JetStream's own terms: made, looked at, read by place, written, purged."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nats.aio.msg import Msg

from penstock.errors import LogUnusable, NotALog
from penstock.log.nats.api import Api, Consumer, Told, refuse
from penstock.log.nats.connection import Connection, Question
from penstock.log.nats.entry import Entry, Subjects, read_entry
from penstock.log.nats.errors import NO_MESSAGE, NO_STREAM, STREAM_EXISTS, Refused
from penstock.log.nats.url import Settings

logger = logging.getLogger("penstock.log")

# JetStream remembers the ids of messages for so long; that of the last one is all that is needed here.
_REMEMBER_IDS_NS = 2_000_000_000
_LAST_SEQUENCE, _LAST_ID = "Nats-Expected-Last-Sequence", "Nats-Expected-Last-Msg-Id"
_LAST_OF_SUBJECT, _ID = "Nats-Expected-Last-Subject-Sequence", "Nats-Msg-Id"
HEADER_BYTES = 300  # at most, of a message that is published here


class Message(NamedTuple):
    """A message that is to be published.

    Attributes:
        subject: where to.
        entry: what it says.
        only_if_new: refuse it if the subject has a message already.
    """

    subject: str
    entry: Entry
    only_if_new: bool = False


class Found(NamedTuple):
    """What JetStream tells about the stream.

    Attributes:
        first: the place of its oldest message; one beyond the last if there is none.
        last: the place that was given out last.
        messages: how many it holds.
        created: when it was made.
    """

    first: int
    last: int
    messages: int
    created: str


class Stream:
    """See above. All of it happens on the log's loop.

    Args:
        settings: of the log.
        connection: the log's.

    Attributes:
        subjects: its subjects.
        answer_s: how long it waits for an answer.
        replicated: whether several servers hold it.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._api = Api(settings, connection)
        self.subjects = Subjects(settings.prefix)
        self.answer_s = settings.answer_s
        self.replicated = False

    # The stream itself

    async def look(self) -> Found | None:
        """What there is; None if there is no such stream."""
        try:
            found = await self._api.request("STREAM.INFO")
        except Refused as error:
            if error.number == NO_STREAM:
                return None
            raise
        return _found(found)

    async def make(self) -> None:
        """Make the stream if there is none, and see that it can be a log.

        Raises:
            NotALog: if it is somebody else's.
            LogUnusable: if it is not made as a log needs it.
        """
        try:
            answer = await self._api.request("STREAM.INFO")
        except Refused as error:
            if error.number != NO_STREAM:
                raise
            try:
                answer = await self._api.request("STREAM.CREATE", self._wanted())
            except Refused as refused:
                if refused.number != STREAM_EXISTS:  # another process was faster, with other replicas
                    raise
                answer = await self._api.request("STREAM.INFO")
        self._check(answer["config"])
        self.replicated = answer["config"].get("num_replicas", 1) > 1

    def _wanted(self) -> dict[str, Any]:
        return {
            "name": self._settings.stream,
            "description": "A log of Penstock",
            "subjects": self.subjects.all,
            "retention": "limits",
            "storage": "file",
            "num_replicas": self._settings.replicas,
            "discard": "new",  # limits that are set later refuse what is new; nothing vanishes
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "duplicate_window": _REMEMBER_IDS_NS,
            "republish": {"src": self.subjects.log, "dest": self.subjects.stored},  # wakes who follows
        }

    def _check(self, config: Mapping[str, Any]) -> None:
        name = self._settings.stream
        subjects, present = self.subjects, sorted(config.get("subjects") or [])
        if present != sorted(subjects.all):
            raise NotALog(
                f"the stream {name} of {self._settings.url} has the subjects {present}, not those of a "
                f"log with prefix={self._settings.prefix}; it was left as it is"
            )
        told = config.get("republish") or {}
        subjects_told = told.get("src"), told.get("dest")
        if config.get("retention") != "limits" or subjects_told != (subjects.log, subjects.stored):
            raise LogUnusable(
                f"the stream {name} of {self._settings.url} is not made as a log needs it, with "
                f"retention=limits and republish from '{subjects.log}' to '{subjects.stored}'. Let Penstock "
                "make it, or see docs/nats.md; it was left as it is"
            )
        for what in _dangers(config):
            logger.warning("the stream %s of %s: %s", name, self._settings.url, what)

    async def purge(self, before: int) -> None:
        """Remove all messages before a place."""
        await self._api.request("STREAM.PURGE", {"seq": before})

    # Messages

    async def at_or_after(self, place: int) -> Entry | None:
        """The first message that lies there or later, signposts aside."""
        [entry] = await self.get_all([{"seq": place, "next_by_subj": self.subjects.log}])
        return entry

    async def get_all(self, wanted: Sequence[dict[str, Any]]) -> list[Entry | None]:
        """Messages as JetStream finds them by sequence or subject, in one round trip; None where is none."""
        return [_entry(told) for told in await self._api.request_all("STREAM.MSG.GET", wanted)]

    async def consumer(self, first: int, subject: str) -> Consumer:
        """See ``Api.consumer``."""
        return await self._api.consumer(first, subject)

    async def publish(self, messages: Sequence[Message], after: int, *, explain: bool = False) -> None:
        """Store messages in the places that follow one; the last only if all are.

        Each of them is refused unless the one before is the newest there is. So they rest together; but
        the first of them may be stored and the last not.

        Args:
            messages: what to store.
            after: the place of the newest message that there is.
            explain: let each of them be answered: then the error is that of the first which was refused.

        Raises:
            Refused: if the last was not stored.
            ConnectionLost: if nobody can say.
        """
        own = messages[-1].entry.id
        questions: list[Question] = []
        for index, (subject, entry, only_if_new) in enumerate(messages):
            headers = {_LAST_SEQUENCE: str(after + index)}
            if index:
                headers[_LAST_ID] = f"{own}.{index - 1}"
            if only_if_new:
                headers[_LAST_OF_SUBJECT] = "0"
            if entry.left:
                headers[_ID] = f"{own}.{index}"
            if entry.left and not explain:
                await self._connection.tell(subject, entry.payload(), headers)
            else:
                questions.append(Question(subject, entry.payload(), headers))
        for answer in await self._connection.ask_all(questions, self._settings.answer_s):
            refuse(json.loads(answer.data))

    async def newest_place(self) -> int:
        """The place of the newest message, as those know who replicate it.

        A message is asked for that can never be stored; it goes the way of all that are written and is
        refused where they are stored, with the reason. A question goes to one server, which may have
        come to lead the stream just now and not have everything yet.
        """
        headers = {_LAST_SEQUENCE: str(2**63 - 1)}
        [told] = await self._api.ask_all([Question(self.subjects.state, b"", headers)])
        return Refused(told.get("error", {})).last or 0

    async def listen(self, heard: Callable[[Entry], None]) -> Callable[[], Awaitable[None]]:
        """Hear from now on of each message that was stored, signposts aside, while the connection holds.

        Returns:
            What ends it.
        """

        def hear(message: Msg) -> None:
            place = int((message.headers or {}).get("Nats-Sequence", 0))
            heard(read_entry(message.data, place))

        stop = await self._connection.listen(self.subjects.stored, hear)
        await self.look()
        self._connection.check_denial()
        return stop


def _entry(told: Told) -> Entry | None:
    try:
        refuse(told)
    except Refused as error:
        if error.number == NO_MESSAGE:
            return None
        raise
    message = told["message"]
    return read_entry(base64.b64decode(message.get("data", "")), message["seq"])


def _found(told: Told) -> Found:
    state = told["state"]
    first = state["first_seq"] if state["messages"] else state["last_seq"] + 1
    return Found(first, state["last_seq"], state["messages"], told.get("created", ""))


def _dangers(config: Mapping[str, Any]) -> list[str]:
    """Settings that somebody made by hand, and what they do."""
    found = []
    for name in ("max_age", "max_msgs_per_subject"):
        if config.get(name, 0) > 0:
            found.append(
                f"{name} is set: JetStream removes events by itself, whatever the retention says; unset it"
            )
    if config.get("discard") != "new" and max(config.get("max_msgs", 0), config.get("max_bytes", 0)) > 0:
        found.append("discard=old: JetStream removes events when it is full; set discard=new")
    if config.get("storage") != "file":
        found.append("storage=memory: the log is gone when its servers end; make it anew with storage=file")
    return found
