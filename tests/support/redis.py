"""A Redis, or Valkey, of a test's own; it may be killed, frozen, and started again with its data.

with RedisServer() as server:
    open_log(server.url())
    server.kill()
    server.start()

``PENSTOCK_TEST_REDIS`` names another program than the ``redis-server`` or ``valkey-server`` of the path.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from penstock.log import open_log
from penstock.log.base import Log
from tests.support.ports import free_port, is_free
from tests.support.wait import wait_for

PROGRAM = (
    os.environ.get("PENSTOCK_TEST_REDIS") or shutil.which("redis-server") or shutil.which("valkey-server")
)

need_redis = pytest.mark.skipif(
    PROGRAM is None or importlib.util.find_spec("redis") is None,
    reason="tests of Redis need a server and the driver; "
    "the cure: apt-get install redis-server, pip install 'penstock[redis]'",
)

# What is acknowledged survives kill -9 of the server.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
_prefixes = itertools.count(1)


class RedisServer:
    """A server at a port of 127.0.0.1, and at a Unix socket; started by ``with`` or ``start``.

    Args:
        options: of its command line. By default it keeps nothing.
        password: that it wants.
        tls: whether the port speaks TLS: then options say where the certificate is.
        sentinel: lines of the file of a sentinel; it is one then.
    """

    def __init__(
        self, *options: str, password: str | None = None, tls: bool = False, sentinel: Sequence[str] = ()
    ) -> None:
        self.options = list(options)
        if password is not None:
            self.options += ["--requirepass", password]
            self.options += ["--masterauth", password] if not sentinel else []
        self.password = password
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-redis-"))
        self.socket = self.folder / "socket"
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        self._file: list[str] = []
        if sentinel:
            file = self.folder / "sentinel.conf"  # the sentinel writes to it
            file.write_text("".join(f"{line}\n" for line in sentinel))
            self._file = [str(file), "--sentinel"]
        self.process: subprocess.Popen[bytes] | None = None
        self._tls = tls

    def url(self, *, prefix: str | None = None, **options: object) -> str:
        """Of a log of its own, unless a prefix is given."""
        return url_of(f"redis://127.0.0.1:{self.port}", prefix=prefix, **options)

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, *more: str) -> Self:
        """Start, and wait until it has read its data and answers."""
        assert PROGRAM is not None
        assert self.process is None, "the server runs"
        port = ["--port", "0", "--tls-port", str(self.port)] if self._tls else ["--port", str(self.port)]
        command = [PROGRAM, *self._file, *port, "--bind", "127.0.0.1", "--dir", str(self.disk)]
        command += ["--unixsocket", str(self.socket)]
        if not self._file:
            command += ["--save", "", "--repl-diskless-sync-delay", "0"]
        command += [*self.options, *more]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for(self._answers, what=lambda: f"{self} answers:\n{self.log}")
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """``kill -9``; nothing if it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            wait_for(lambda: is_free(self.port), what=f"port {self.port} is free after the kill")

    def restart(self, *more: str) -> None:
        self.kill()
        self.start(*more)

    def lose_its_data(self) -> None:
        """Remove what it has on its disk; it does not run."""
        assert self.process is None, "the server runs"
        shutil.rmtree(self.disk)
        self.disk.mkdir()

    def take_backup(self) -> None:
        """Copy what it has on its disk; it does not run."""
        assert self.process is None, "the server runs"
        shutil.copytree(self.disk, self.folder / "backup")

    def restore_backup(self) -> None:
        """It has what it had then, and nothing more; it does not run."""
        self.lose_its_data()
        shutil.copytree(self.folder / "backup", self.disk, dirs_exist_ok=True)

    def freeze(self) -> None:
        """SIGSTOP: it takes connections, and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it for the block."""
        self.freeze()
        try:
            yield
        finally:
            self.go_on()

    def go_on(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def ask(self, *command: object) -> Any:
        """What it answers to an operator, over its socket."""
        from redis.connection import (
            UnixDomainSocketConnection,
        )  # whoever has no driver collects the tests too

        connect: Any = UnixDomainSocketConnection
        connection = connect(path=str(self.socket), password=self.password, protocol=2, socket_timeout=30)
        try:
            connection.send_command(*(word if isinstance(word, bytes) else str(word) for word in command))
            return connection.read_response()
        finally:
            connection.disconnect()

    def info(self, name: str) -> str:
        """What it says of itself under a name of INFO; empty if nothing."""
        rows = self.ask("INFO", "all").decode().splitlines()
        return next((row.partition(":")[2] for row in rows if row.startswith(f"{name}:")), "")

    @staticmethod
    def version() -> tuple[int, int]:
        """Of the program; a Valkey is newer than any Redis that it is like."""
        assert PROGRAM is not None
        said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"v=(\d+)\.(\d+)", said)
        assert found is not None, said
        return int(found[1]), int(found[2])

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self} ended:\n{self.log}"
        from redis.exceptions import RedisError

        try:
            self.ask("PING")
        except RedisError:
            return False
        return True

    def __enter__(self) -> Self:
        return self if self.process is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            print(f"--- log of {self}\n{self.log}")
        self.close()

    def __repr__(self) -> str:
        state = f"pid {self.process.pid}" if self.process else "not running"
        return f"<RedisServer {self.port} ({state})>"


def replica_of(primary: RedisServer) -> list[str]:
    """Options of its replica."""
    return ["--replicaof", "127.0.0.1", str(primary.port)]


def url_of(base: str, *, prefix: str | None = None, **options: object) -> str:
    """A URL with options; of a log of its own, unless a prefix is given."""
    options["prefix"] = prefix or f"test{next(_prefixes)}"
    return base + "?" + "&".join(f"{name}={value}" for name, value in options.items())


@contextlib.contextmanager
def opened(*urls: str) -> Iterator[Sequence[Log]]:
    """Logs of URLs, opened."""
    with contextlib.ExitStack() as stack:
        logs = []
        for url in urls:
            logs.append(open_log(url))
            stack.callback(logs[-1].close)
            logs[-1].open()
        yield logs
