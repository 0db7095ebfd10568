"""A PostgreSQL of a test's own: another user runs it where we are root, for it refuses to run as such.

with PostgreSQL() as database:
    psycopg.connect(host="127.0.0.1", port=database.port, user="postgres")
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.support.ports import free_port
from tests.support.wait import wait_for

_USER = "postgres"  # that of Debian's package


def _programs() -> Path | None:
    """Where its programs are; Debian puts none but the clients on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and (program := shutil.which("initdb")) is not None:
        found = [Path(program)]
    return found[-1].parent if found else None


need_postgres = pytest.mark.skipif(
    _programs() is None or importlib.util.find_spec("psycopg_pool") is None,
    reason="tests of database connections need PostgreSQL and psycopg; "
    "the cure: apt-get install postgresql, pip install 'psycopg[binary,pool]'",
)


class PostgreSQL:
    """A server with an empty database ``postgres``, for which nobody needs a password.

    Its folder is one of its own, since the folders of tests are open to nobody else.

    Attributes:
        port: on 127.0.0.1.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._as_user: dict[str, Any] = {"user": _USER, "group": _USER, "extra_groups": []}
        if os.geteuid() != 0:
            self._as_user = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        programs = _programs()
        assert programs is not None
        self._folder = tempfile.mkdtemp(prefix="penstock-postgres-")
        try:
            if self._as_user:
                shutil.chown(self._folder, _USER, _USER)
            data, log = f"{self._folder}/data", f"{self._folder}/log"
            common: dict[str, Any] = {"cwd": self._folder, "stdin": subprocess.DEVNULL, **self._as_user}
            make: list[Any] = [programs / "initdb", "-D", data, "-U", _USER, "--auth=trust", "--no-sync"]
            make += ["--no-locale", "--encoding=UTF8"]
            subprocess.run(make, check=True, capture_output=True, timeout=60, **common)
            serve: list[Any] = [programs / "postgres", "-D", data, "-p", str(self.port), "-k", self._folder]
            serve += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
            with open(log, "wb") as output:
                self._process = subprocess.Popen(
                    serve, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **common
                )
            wait_for(self._accepts, 60, what=lambda: f"PostgreSQL accepts:\n{Path(log).read_text()}")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "PostgreSQL has ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once, whoever is connected
            self._process.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)
