"""JetStream's API: questions in JSON that may be asked again, and what hands out many messages."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.log.nats.connection import Connection, Question
from penstock.log.nats.entry import Entry, read_entry
from penstock.log.nats.errors import NOT_ENABLED, ConnectionLost, NoResponders, Refused, not_enabled
from penstock.log.nats.url import Settings

Told = dict[str, Any]

_NEXT_WITHIN_NS = 500_000_000  # what was counted comes at once, unless all of it was removed meanwhile
_FORGET_CONSUMER_NS = 5_000_000_000  # should it not have been deleted
_PAUSE_S = 0.05  # between questions that nobody could answer
_NOT_NOW = 503


class Api:
    """Asks about one stream. All of it happens on the log's loop.

    Args:
        settings: of the log.
        connection: the log's.
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._prefix = f"$JS.{settings.domain}.API" if settings.domain else "$JS.API"

    async def request(self, what: str, more: Mapping[str, Any] | None = None) -> Told:
        """Ask one thing.

        Raises:
            Refused: if it was not done.
        """
        [told] = await self.request_all(what, [more])
        refuse(told)
        return told

    async def request_all(self, what: str, every: Sequence[Mapping[str, Any] | None]) -> list[Told]:
        """Ask some things in one go; errors are in the answers."""
        subject = f"{self._prefix}.{what}.{self._settings.stream}"
        payloads = [b"" if more is None else json.dumps(more).encode() for more in every]
        return await self.ask_all([Question(subject, payload) for payload in payloads])

    async def ask_all(self, questions: Sequence[Question]) -> list[Told]:
        """Ask what may be asked again; for a question is lost with the server that led the stream."""
        began, answer_s, moved = time.monotonic(), self._settings.answer_s, False
        while True:
            passed_s = time.monotonic() - began
            try:
                answers = await self._connection.ask_all(questions, answer_s)
                told: list[Told] = [json.loads(answer.data) for answer in answers]
                if passed_s > answer_s or not any(map(_is_for_now, told)):
                    return told
                if passed_s > answer_s / 2 and not moved:
                    moved = True  # it may be this server alone that knows of no leader
                    await self._connection.move()
            except ConnectionLost:
                if passed_s > self._settings.timeout_s:
                    raise
            except NoResponders:
                if not self._connection.has_jetstream:
                    raise not_enabled(self._settings.url) from None
                if passed_s > answer_s:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def consumer(self, first: int, subject: str) -> Consumer:
        """What gives many messages in one go.

        Args:
            first: the place where to begin.
            subject: those of these subjects alone.
        """
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": first,
            "filter_subject": subject,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _FORGET_CONSUMER_NS,
        }
        stream = self._settings.stream
        made = await self.request("CONSUMER.CREATE", {"stream_name": stream, "config": config})
        api, name = f"{self._prefix}.CONSUMER", f"{stream}.{made['name']}"
        return Consumer(self._connection, api, name, made["num_pending"], self._settings.answer_s)


class Consumer:
    """Gives messages in order.

    Attributes:
        pending: how many there were when it was made, about.
    """

    def __init__(self, connection: Connection, api: str, name: str, pending: int, answer_s: float) -> None:
        self._connection = connection
        self._api = api
        self._name = name
        self._until = time.monotonic() + answer_s  # till then it may be on its way to be known everywhere
        self.pending = pending

    async def next(self, count: int, most_bytes: int = 0) -> list[Entry]:
        """The next so many; fewer if they have more bytes, or there are no more."""
        if not count:
            return []
        wanted = {"batch": count, "no_wait": True, "expires": _NEXT_WITHIN_NS}
        if most_bytes:
            wanted["max_bytes"] = most_bytes
        subject, payload = f"{self._api}.MSG.NEXT.{self._name}", json.dumps(wanted).encode()
        while True:
            try:
                answers = await self._connection.ask_for_many(subject, payload, count)
                break
            except NoResponders:
                if time.monotonic() > self._until:
                    raise
            await asyncio.sleep(_PAUSE_S)
        self._until = 0.0
        return [read_entry(answer.data) for answer in answers]

    async def end(self) -> None:
        """Let the server forget it, which it would do by itself some time later."""
        await self._connection.tell(f"{self._api}.DELETE.{self._name}", b"")


def refuse(told: Told) -> None:
    """Raise what an answer says."""
    if error := told.get("error"):
        raise Refused(error)


def _is_for_now(told: Told) -> bool:
    """Whether a server says that it cannot answer now: it may be electing a leader."""
    error = told.get("error", {})
    return error.get("code") == _NOT_NOW and error.get("err_code") not in NOT_ENABLED
