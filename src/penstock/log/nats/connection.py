"""The one connection of a log: made by its first use, dropped when it fails, made anew by the next use.

It never mends itself in the background, and nothing waits in a buffer for better times: what is asked for
while there is no connection fails at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from penstock.errors import ConfigError, LogDenied, LogError
from penstock.log.nats.dial import dial, end, tasks_of
from penstock.log.nats.errors import ConnectionLost, NoResponders, connecting, denied
from penstock.log.nats.sockets import Loop
from penstock.log.nats.url import Server, Settings

_NO_RESPONDERS = "503"
_HANG_UPS = 3  # a server that does not let us in hangs up, and why may be lost: it is asked again


class Question(NamedTuple):
    """A message that is to be answered."""

    subject: str
    payload: bytes = b""
    headers: Mapping[str, str] | None = None


class _Answers:
    """What was answered so far.

    Args:
        subject: who was asked.
        wanted: how many are to come; fewer if one of them is a status alone.
    """

    def __init__(self, subject: str, wanted: int = 1) -> None:
        self.subject = subject
        self._wanted = wanted
        self._found: list[Msg] = []
        self.all: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()

    def take(self, message: Msg) -> None:
        if self.all.done():
            return
        status = None if message.data else (message.headers or {}).get("Status")
        if status == _NO_RESPONDERS:
            self.fail(NoResponders())
            return
        if status is None or self._wanted == 1:
            self._found.append(message)
        if status is not None or len(self._found) == self._wanted:
            self.all.set_result(self._found)

    def fail(self, error: Exception) -> None:
        if not self.all.done():
            self.all.set_exception(error)
            self.all.exception()  # whoever waits no longer need not take it


class Connection:
    """A connection to one of the servers. All of it happens on the log's loop.

    Args:
        settings: of the log.
        lost: is told when the connection broke.

    Attributes:
        number: counts the connections that were made.
        max_payload: the largest message that the server takes.
        has_jetstream: whether the server said that it has JetStream.
    """

    def __init__(self, settings: Settings, lost: Callable[[], None]) -> None:
        self._settings = settings
        self._lost = lost
        self._connecting = asyncio.Lock()
        self._client: Client | None = None
        self._servers = list(settings.servers)
        random.shuffle(self._servers)
        self._transport: asyncio.Transport | None = None  # of the client
        self._answers: dict[str, _Answers] = {}  # by inbox
        self._inbox = ""
        self._asked = 0
        self._denial: LogDenied | None = None
        self.number = 0
        self.max_payload = 0
        self.has_jetstream = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._client is not None and self._client.is_connected

    async def ready(self) -> Client:
        """A connection that works, as far as is known.

        Raises:
            LogError: if no server can be reached, or none lets us in.
        """
        async with self._connecting:
            if self._client is None or not self._client.is_connected:
                await self.drop()
                self._client = await self._connect()
                self.number += 1
            return self._client

    async def ask_all(self, questions: Sequence[Question], timeout_s: float) -> list[Msg]:
        """Send messages in one go and wait for all answers, which come in the order of the messages.

        If one does not come the connection is dropped: it may be deaf.

        Raises:
            ConnectionLost: if an answer did not come; the message may have arrived.
            NoResponders: if nobody takes such messages.
            LogDenied: if we may not send them.
        """
        client = await self.ready()
        number = self.number
        asked: list[str] = []
        found: list[Msg] = []
        try:
            async with asyncio.timeout(timeout_s):
                for subject, payload, headers in questions:
                    asked.append(self._new_inbox())
                    self._answers[asked[-1]] = _Answers(subject)
                    await client.publish(subject, payload, asked[-1], headers)  # type: ignore[arg-type]
                for inbox in asked:
                    found += await self._answers[inbox].all
        except TimeoutError as error:
            if number == self.number:
                await self.drop()
            raise ConnectionLost(f"no answer within {timeout_s:g} s") from error
        finally:
            for inbox in asked:
                self._answers.pop(inbox).all.cancel()
        return found

    async def ask_for_many(self, subject: str, payload: bytes, wanted: int) -> list[Msg]:
        """Send a message that has many answers, until a status says that there are no more.

        Raises:
            ConnectionLost: if they did not come.
        """
        client = await self.ready()
        inbox = client.new_inbox()  # what comes from a stream keeps its subject, so it needs a subscription
        answers = self._answers[inbox] = _Answers(subject, wanted)

        async def take(message: Msg) -> None:
            answers.take(message)

        subscription = await client.subscribe(inbox, cb=take)
        try:
            async with asyncio.timeout(self._settings.answer_s):
                await client.publish(subject, payload, inbox)
                return await answers.all
        except TimeoutError as error:
            raise ConnectionLost(f"no answer within {self._settings.answer_s:g} s") from error
        finally:
            del self._answers[inbox]
            with contextlib.suppress(Error):  # the connection broke
                await subscription.unsubscribe()

    async def tell(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a message that has no answer."""
        client = await self.ready()
        await client.publish(subject, payload, headers=headers)  # type: ignore[arg-type]

    async def listen(self, subject: str, heard: Callable[[Msg], None]) -> Callable[[], Awaitable[None]]:
        """Hear all messages of a subject, from the next answer on and for as long as this connection holds.

        Whether it was denied is known by the next answer too: see ``check_denial``.

        Returns:
            What ends it sooner.
        """
        client = await self.ready()

        async def hear(message: Msg) -> None:
            heard(message)

        self._denial = None
        subscription = await client.subscribe(subject, cb=hear)

        async def stop() -> None:
            with contextlib.suppress(Error):
                await subscription.unsubscribe()

        return stop

    def check_denial(self) -> None:
        """Raise ``LogDenied`` if what was to be heard last may not be heard."""
        if self._denial is not None:
            raise self._denial

    async def drop(self) -> None:
        """Let go of the connection, without a word to the server and without waiting for it."""
        client, self._client = self._client, None
        if client is not None:
            await end(client, self._transport)
        self._fail(ConnectionLost("the connection was dropped"))

    async def move(self) -> None:
        """Let the next connection be to another server."""
        self._servers.append(self._servers.pop(0))
        await self.drop()

    def _fail(self, error: Exception, subject: str | None = None) -> None:
        """Give those an error who wait for answers, or those alone who asked a subject."""
        for answers in list(self._answers.values()):
            if subject is None or answers.subject.lower() == subject:
                answers.fail(error)

    # Connecting

    async def _connect(self) -> Client:
        errors: dict[str, Exception] = {}
        for server in list(self._servers):
            for _ in range(_HANG_UPS):
                try:
                    client = await self._connect_to(server)
                except (LogError, ConfigError):
                    raise
                except Exception as error:
                    errors[str(server)] = error
                    if not isinstance(error, ConnectionError) or isinstance(error, ConnectionRefusedError):
                        break
                else:
                    self._take_note_of(client)
                    return client
            self._servers.append(self._servers.pop(0))  # begin with another the next time
        raise connecting(errors, self._settings.url) from next(reversed(errors.values()))

    async def _connect_to(self, server: Server) -> Client:
        async def failed(error: Exception) -> None:
            if client is not None and client is self._client:
                self._denied(error)

        def ended(_: object) -> None:
            if client is not None and client is self._client:
                self._fail(ConnectionLost(f"the connection to {server} broke"))
                self._lost()

        client: Client | None = None
        client = await dial(server, self._settings, failed)
        for task in tasks_of(client):
            task.add_done_callback(ended)
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._answered)
        return client

    def _take_note_of(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        self._transport = loop.transport
        self.max_payload = client.max_payload
        info: Mapping[str, Any] = client._server_info  # there is no other way to it
        self.has_jetstream = bool(info.get("jetstream"))
        if loop.secured:
            return  # those that it tells of are numbers, for which certificates seldom are
        for found in client.discovered_servers:
            server = Server(found.hostname or "", found.port or 0)
            if server not in self._servers:
                self._servers.append(server)

    def _new_inbox(self) -> str:
        self._asked += 1
        return f"{self._inbox}.{self._asked}"

    async def _answered(self, message: Msg) -> None:
        answers = self._answers.get(message.subject)
        if answers is not None:
            answers.take(message)

    def _denied(self, error: Exception) -> None:
        """Those who asked what they may not would wait in vain; the driver tells of it in lower case."""
        text = str(error)
        if "permissions violation" in text:
            subject = text.partition('"')[2].rpartition('"')[0]
            self._denial = denied(error, self._settings.url)
            self._fail(self._denial, subject if "for publish" in text else None)
