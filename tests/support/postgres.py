"""A PostgreSQL of a test's own: another user runs it where we are root, for it refuses to run as such.

with PostgreSQL() as database:
    psycopg.connect(host="127.0.0.1", port=database.port, user="postgres")
    database.kill()
    database.start()  # at the same port, with its data
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest

from tests.support.ports import free_port
from tests.support.wait import wait_for

_USER = "postgres"  # that of Debian's package
_BOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def _programs() -> Path | None:
    """Where its programs are; Debian puts none but the clients on the path."""
    if given := os.environ.get("PENSTOCK_TEST_POSTGRES"):  # of another release, say
        return Path(given)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and (program := shutil.which("initdb")) is not None:
        found = [Path(program)]
    return found[-1].parent if found else None


need_postgres = pytest.mark.skipif(
    _programs() is None or importlib.util.find_spec("psycopg_pool") is None,
    reason="tests of PostgreSQL need its server and psycopg; "
    "the cure: apt-get install postgresql, pip install 'psycopg[binary,pool]'",
)
need_pgbouncer = pytest.mark.skipif(
    _BOUNCER is None, reason="tests of a pooler need PgBouncer; the cure: apt-get install pgbouncer"
)


def _as_user() -> dict[str, Any]:
    return {"user": _USER, "group": _USER, "extra_groups": []} if os.geteuid() == 0 else {}


class _Daemon:
    """A process in a folder of its own, since the folders of tests are open to nobody else.

    Attributes:
        port: on 127.0.0.1.
        folder: for its files; it is removed in the end.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="penstock-postgres-")
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, _USER, _USER)

    @property
    def log(self) -> str:
        """All that it wrote."""
        path = Path(self.folder, "log")
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is not started"
        return self._process.pid

    def _spawn(self, command: list[Any]) -> None:
        assert self._process is None, "it is started already"
        with open(f"{self.folder}/log", "ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_as_user(),
            )

    def freeze(self) -> None:
        """SIGSTOP to all its processes: it answers nothing more."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT to all its processes."""
        self._signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to all its processes, as if the power failed; nothing if it is not started."""
        if self._process is not None:
            self._signal_all(signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def _signal_all(self, number: signal.Signals) -> None:
        """Each of its processes has a session of its own."""
        first = psutil.Process(self.pid)
        for process in [first, *first.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it has ended:\n{self.log}"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Kill it, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgreSQL(_Daemon):
    """A server with an empty database ``postgres``, for which nobody needs a password.

    Args:
        settings: of the server, over those of tests.
    """

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self.settings: dict[str, object] = {
            "listen_addresses": "127.0.0.1",
            "fsync": "off",
            **(settings or {}),
        }

    def __enter__(self) -> Self:
        try:
            self.make()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    @property
    def data(self) -> str:
        return f"{self.folder}/data"

    def url(self, options: str = "", *, user: str = _USER, database: str = "postgres") -> str:
        """That of a log in it; ``options`` are what follows the question mark."""
        query = f"?{options}" if options else ""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{query}"

    def make(self) -> None:
        """Make it anew: what it had is gone."""
        shutil.rmtree(self.data, ignore_errors=True)
        options = ["-U", _USER, "--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8"]
        self.run("initdb", "-D", self.data, *options)

    def copy_of(self, primary: PostgreSQL) -> None:
        """Begin as a standby of another server, which it follows when it is started."""
        source = f"host=127.0.0.1 port={primary.port} user={_USER}"
        self.run("pg_basebackup", "-D", self.data, "-R", "--checkpoint=fast", "--no-sync", "-d", source)

    def promote(self) -> None:
        """Make a primary of a standby."""
        self.run("pg_ctl", "promote", "-D", self.data)

    def start(self, *, until_ready: bool = True) -> None:
        """Start it, and wait until it accepts connections."""
        programs = _programs()
        assert programs is not None
        command: list[Any] = [
            programs / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.folder,
        ]  # fmt: skip
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        self._spawn(command)
        if until_ready:
            wait_for(self._accepts, 60, what=lambda: f"PostgreSQL accepts:\n{self.log}")
            wait_for(self._is_ready, 60, what=lambda: f"PostgreSQL is ready:\n{self.log}")

    def restart(self, *, data: bool = True) -> None:
        """Kill it, and start it at the same port: with its data, or empty."""
        self.kill()
        if not data:
            self.make()
        self.start()

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs to its end."""
        programs = _programs()
        assert programs is not None
        done = subprocess.run(
            [programs / program, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            **_as_user(),
        )
        assert done.returncode == 0, f"{program}: {done.stderr.decode()}"

    def _is_ready(self) -> bool:
        programs = _programs()
        assert programs is not None
        command: list[Any] = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command).returncode == 0


class PgBouncer(_Daemon):
    """A pooler before a server, which gives each transaction whichever connection is free.

    Args:
        server: where its connections lead.
        mode: ``transaction`` or ``session``.
    """

    def __init__(self, server: PostgreSQL, mode: str = "transaction") -> None:
        super().__init__()
        self.server = server
        self.mode = mode

    def url(self, options: str = "") -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres?{options}"

    def __enter__(self) -> Self:
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": self.mode,
            "default_pool_size": 5,
        }
        lines = ["[databases]", f"* = host=127.0.0.1 port={self.server.port} user={_USER}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        ini = Path(self.folder, "pgbouncer.ini")
        ini.write_text("\n".join(lines) + "\n")
        ini.chmod(0o644)
        assert _BOUNCER is not None
        try:
            self._spawn([_BOUNCER, str(ini)])
            wait_for(self._accepts, 60, what=lambda: f"PgBouncer accepts:\n{self.log}")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
