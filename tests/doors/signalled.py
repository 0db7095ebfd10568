"""A program whose streams are told of signals: ``python -m tests.doors.signalled HOW``.

It writes a line when it is ready and for each thing that happens: what its client was sent, which of its
handlers was called. ``HOW`` is what is done with handlers before and after the first stream.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from types import FrameType

from starlette.types import Message

from penstock import Penstock
from penstock.doors.asgi import Door
from penstock.doors.ask import check_ask
from penstock.doors.signals import drain_on_signal

SCOPE = {"type": "http", "method": "GET", "client": None, "server": None}


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class Client:
    """One client; it may take nothing."""

    def __init__(self, bus: Penstock, *, takes: bool = True) -> None:
        self._door = Door(lambda: bus.engine)
        self._takes = takes
        self._greeted = False
        self.opened = asyncio.Event()

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.opened.set()
        if not self._takes:
            await asyncio.Event().wait()
        if b"retry" in message.get("body", b""):
            if self._greeted:
                say("farewell")
            self._greeted = True

    async def follow(self) -> None:
        await self._door.answer(dict(SCOPE), self.receive, self.send, check_ask(["chat"]))


async def serve(how: str) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    interrupt = signal.getsignal(signal.SIGINT)

    def stop(who: str) -> None:
        say(who)
        loop.call_soon_threadsafe(stopped.set)

    def first(number: int, frame: FrameType | None) -> None:
        stop("first handler")

    def second(number: int, frame: FrameType | None) -> None:
        stop("second handler")

    if how == "loop":
        loop.add_signal_handler(signal.SIGTERM, stop, "loop's handler")
    elif how == "ignored":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif how != "default":
        signal.signal(signal.SIGTERM, first)
    with Penstock("memory:") as bus:
        if how == "no stream":
            await bus.apublish("chat", "hi")
            assert signal.getsignal(signal.SIGTERM) is first
            assert signal.getsignal(signal.SIGINT) is interrupt
        elif how == "another thread":
            found: list[bool] = []
            thread = threading.Thread(target=lambda: found.append(drain_on_signal(bus.engine)))
            thread.start()
            thread.join()
            assert found == [False]
            assert signal.getsignal(signal.SIGTERM) is first
        else:
            streams = [await open_stream(bus, takes=how != "stuck")]
            if how == "wrapped":
                ours = signal.getsignal(signal.SIGTERM)

                def over_ours(number: int, frame: FrameType | None) -> None:
                    say("second handler")
                    assert callable(ours)
                    ours(number, frame)

                signal.signal(signal.SIGTERM, over_ours)
            if how == "replaced":
                signal.signal(signal.SIGTERM, second)
            streams.append(await open_stream(bus))
            streams.append(await open_stream(bus))
        if how == "forked":
            if (child := os.fork()) == 0:
                os.kill(os.getpid(), signal.SIGTERM)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        say("ready")
        if how == "ignored":
            await asyncio.to_thread(sys.stdin.readline)
        else:
            await stopped.wait()
        say("stopped")


async def open_stream(bus: Penstock, *, takes: bool = True) -> asyncio.Task[None]:
    client = Client(bus, takes=takes)
    task = asyncio.create_task(client.follow())
    await client.opened.wait()
    return task


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
