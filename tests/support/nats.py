"""NATS servers of a test's own, alone or as a cluster, with JetStream.

with NatsServer(tmp_path) as server:
    open_log(f"nats://127.0.0.1:{server.port}/penstock")
    server.kill()
    server.start()

with NatsCluster(tmp_path) as cluster: ...  # of three
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import nats
import pytest

from penstock.log.base import Log
from penstock.log.nats.log import NatsLog
from penstock.log.nats.url import settings_of
from penstock.testing.storage import Opener
from tests.support.ports import free_port, is_free
from tests.support.wait import wait_for

PROGRAM = os.environ.get("PENSTOCK_TEST_NATS", "nats-server")  # of another release, say

need_nats = pytest.mark.skipif(
    shutil.which(PROGRAM) is None,
    reason="tests of the log in NATS need its server; the cure: apt-get install nats-server",
)

_READY_WITHIN_S = 60.0
_names = itertools.count(1)


class NatsServer:
    """A server on a port of 127.0.0.1; started by ``with`` or ``start``.

    Attributes:
        port: where clients connect; stays the same.
        folder: where its data lies.
    """

    def __init__(self, folder: Path, more: str = "", *, jetstream: str = "", name: str = "alone") -> None:
        self.port = free_port()
        self.folder = folder / f"nats-{name}-{self.port}"
        self.folder.mkdir()
        self._config = self.folder / "server.conf"
        self._log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(more, jetstream=jetstream, name=name)

    def configure(self, more: str = "", *, jetstream: str = "", name: str = "alone") -> None:
        """Write the configuration; ``jetstream="off"`` is a server without."""
        block = "" if jetstream == "off" else f"jetstream {{ store_dir: {self.folder}/data, {jetstream} }}"
        self._config.write_text(
            f"listen: 127.0.0.1:{self.port}\nserver_name: {name}\n{block}\n{more or 'max_payload: 8MB'}\n"
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        assert self._process is None, "it runs"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> Self:
        """Start it, and wait until it takes connections."""
        self.launch()
        try:
            wait_for(self._accepts, _READY_WITHIN_S, what=lambda: f"nats-server accepts:\n{self.log}")
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """``kill -9``; its data stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it end in good order."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: connections stay, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Remove its data; it must not run."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def save(self) -> None:
        """Make a backup of its data; it must not run."""
        shutil.rmtree(self.folder / "backup", ignore_errors=True)
        shutil.copytree(self.folder / "data", self.folder / "backup")

    def restore(self) -> None:
        """Put the backup in place of its data; it must not run."""
        self.wipe()
        shutil.copytree(self.folder / "backup", self.folder / "data")

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"nats-server has ended:\n{self.log}"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
        self._process.wait(30)
        self._process = None
        wait_for(lambda: is_free(self.port), what=f"port {self.port} is free")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


class NatsCluster:
    """Three servers with JetStream that know each other.

    Attributes:
        servers: the three.
    """

    def __init__(self, folder: Path, size: int = 3) -> None:
        self.servers = [NatsServer(folder, name=f"n{number}") for number in range(size)]
        routes = [free_port() for _ in self.servers]
        every = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        for number, (server, port) in enumerate(zip(self.servers, routes, strict=True)):
            cluster = f"cluster {{ name: test, listen: 127.0.0.1:{port}, routes: [{every}] }}"
            server.configure(f"max_payload: 8MB\n{cluster}", name=f"n{number}")

    @property
    def hosts(self) -> str:
        """As they stand in a URL."""
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def leader(self, stream: str) -> NatsServer:
        """The server that leads a stream."""
        name = jetstream(f"nats://{self.hosts}", f"STREAM.INFO.{stream}")["cluster"]["leader"]
        return self.servers[int(name.removeprefix("n"))]

    def others(self, server: NatsServer) -> list[NatsServer]:
        """All but one."""
        return [other for other in self.servers if other is not server]

    def __enter__(self) -> Self:
        try:
            self.wait_whole()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kill()

    def wait_whole(self) -> None:
        """Start what does not run, and wait until a stream can be made on all servers."""
        for server in self.servers:
            if not server.runs:
                server.launch()
        name = new_stream()

        def is_whole() -> bool:
            more = {"name": name, "subjects": [name], "num_replicas": len(self.servers)}
            with contextlib.suppress(OSError, nats.errors.Error):
                if "error" not in jetstream(f"nats://{self.hosts}", f"STREAM.CREATE.{name}", **more):
                    return "error" not in jetstream(f"nats://{self.hosts}", f"STREAM.DELETE.{name}")
            return False

        wait_for(is_whole, _READY_WITHIN_S, what="the cluster is whole")

    def _kill(self) -> None:
        for server in self.servers:
            server.kill()


def jetstream(url: str, what: str, **more: Any) -> dict[str, Any]:
    """Ask JetStream's API by other means than the log's."""

    async def ask() -> dict[str, Any]:
        async def ignore(error: Exception) -> None:
            pass

        servers = [f"nats://{host}" for host in url.replace("nats://", "").split(",")]
        client = await nats.connect(servers, allow_reconnect=False, error_cb=ignore, connect_timeout=2)
        try:
            answer = await client.request(f"$JS.API.{what}", json.dumps(more).encode() if more else b"", 2)
            told: dict[str, Any] = json.loads(answer.data)
            return told
        finally:
            await client.close()

    return asyncio.run(ask())


def publish(url: str, subject: str, data: bytes) -> None:
    """Publish by other means than the log's, and wait for the answer."""

    async def ask() -> None:
        client = await nats.connect(url, allow_reconnect=False)
        await client.request(subject, data, 5)
        await client.close()

    asyncio.run(ask())


def new_stream() -> str:
    """A name that no stream of this test run has."""
    return f"test-{os.getpid()}-{next(_names)}"


def open_nats(url: str) -> NatsLog:
    """The log of a URL; not opened yet."""
    return NatsLog(settings_of(urlsplit(url)))


def fresh(server: NatsServer, options: str = "") -> Callable[[], Opener]:
    """New streams on a server, as ``check_log`` wants them."""

    def make() -> Opener:
        url = f"{server.url}/{new_stream()}{options}"

        def opener() -> Log:
            return open_nats(url)

        return opener

    return make
