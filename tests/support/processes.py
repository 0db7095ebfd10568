"""Servers in processes of their own, which tests may kill.

with Server.waitress("tests.apps.basic:app", tmp_path) as server:
    ...
    server.kill()
    server.restart()  # at the same URL, in the same folder
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_port, is_free
from tests.support.wait import DEADLINE_S, wait_for

ROOT = Path(__file__).parent.parent.parent
_READY_WITHIN_S = 60.0  # two cores may be busy with other things


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of a process under test: no settings from outside, the tests importable."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PENSTOCK_", "FLASK_", "GRANIAN_", "GUNICORN_", "UVICORN_", "WERKZEUG_"))
    }
    env |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    return env | dict(extra or {})


class Server:
    """A command that serves HTTP at a port of 127.0.0.1; started by ``with`` or ``start``.

    Its working directory is ``folder``, so a relative log URL rests there. Its processes form a
    group, which is ended as a whole.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        port: int,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.command = list(command)
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._env = environment(env)
        self._log_file = folder / f"server-{port}.log"

    @classmethod
    def werkzeug(
        cls, app: str, folder: Path, *, env: Mapping[str, str] | None = None, reload: bool = False
    ) -> Server:
        """Flask's development server; ``app`` is ``module:name``."""
        port = free_port()
        command = [sys.executable, "-m", "flask", "--app", app, "run", "--port", str(port)]
        return cls([*command, "--reload" if reload else "--no-reload"], folder, port=port, env=env)

    @classmethod
    def waitress(
        cls, app: str, folder: Path, *, env: Mapping[str, str] | None = None, threads: int = 16
    ) -> Server:
        port = free_port()
        where = f"--listen=127.0.0.1:{port}"
        command = [sys.executable, "-m", "waitress", where, f"--threads={threads}", app]
        return cls(command, folder, port=port, env=env)

    @classmethod
    def gunicorn(
        cls,
        app: str,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        threads: int = 16,
        workers: int = 1,
        options: Sequence[str] = (),
    ) -> Server:
        """The gthread worker, unless ``options`` say otherwise."""
        port = free_port()
        command = [sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{port}"]
        command += ["--no-control-socket", "--graceful-timeout=5", f"--workers={workers}"]
        command += ["--worker-class=gthread", f"--threads={threads}", *options, app]
        return cls(command, folder, port=port, env=env)

    @classmethod
    def push_worker(
        cls,
        app: str,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        threads: int = 4,
        workers: int = 1,
        options: Sequence[str] = (),
    ) -> Server:
        """gunicorn whose streams hold no thread, unless ``options`` say otherwise."""
        options = ["--worker-class=penstock.doors.gunicorn.PushWorker", *options]
        return cls.gunicorn(app, folder, env=env, threads=threads, workers=workers, options=options)

    @classmethod
    def hypercorn(
        cls,
        app: str,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        workers: int = 1,
        options: Sequence[str] = (),
    ) -> Server:
        """With 0 workers the process that is started serves; else it only starts those that do."""
        port = free_port()
        command = [sys.executable, "-m", "hypercorn", f"--bind=127.0.0.1:{port}", f"--workers={workers}"]
        return cls([*command, *options, app], folder, port=port, env=env)

    @classmethod
    def granian(
        cls,
        app: str,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        workers: int = 1,
        options: Sequence[str] = (),
    ) -> Server:
        port = free_port()
        command = [sys.executable, "-m", "granian", "--interface=asgi", "--host=127.0.0.1", f"--port={port}"]
        return cls([*command, f"--workers={workers}", *options, app], folder, port=port, env=env)

    @classmethod
    def daphne(
        cls, app: str, folder: Path, *, env: Mapping[str, str] | None = None, options: Sequence[str] = ()
    ) -> Server:
        port = free_port()
        command = [sys.executable, "-m", "daphne", "--bind=127.0.0.1", f"--port={port}"]
        return cls([*command, *options, app], folder, port=port, env=env)

    @classmethod
    def uvicorn(
        cls,
        app: str,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        http: str = "penstock.doors.uvicorn:PushProtocol",
        workers: int = 1,
        options: Sequence[str] = (),
    ) -> Server:
        """``http`` is the protocol class; ``auto`` is uvicorn's own."""
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", app, f"--port={port}", f"--http={http}"]
        command += [*([f"--workers={workers}"] if workers > 1 else []), *options]
        return cls(command, folder, port=port, env=env)

    @property
    def log(self) -> str:
        """All that was written to stdout and stderr, over all restarts."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    @property
    def pid(self) -> int:
        """Of the process that was started: with gunicorn the arbiter, not a worker."""
        assert self.process is not None, "the server is not started"
        return self.process.pid

    def start(self) -> Self:
        """Start, and wait until connections are accepted."""
        assert self.process is None, "the server is started already"
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for(self._accepts, _READY_WITHIN_S, what=lambda: f"{self} accepts:\n{self.log}")
        except BaseException:
            self.kill()
            raise
        return self

    def freeze(self) -> None:
        """SIGSTOP to the whole group: it answers nothing more, until it is killed."""
        os.killpg(self.pid, signal.SIGSTOP)

    def kill(self) -> None:
        """SIGKILL to the whole group, as if the power failed; nothing if it is not started."""
        self._end(signal.SIGKILL)

    def terminate(self, deadline_s: float = DEADLINE_S) -> int:
        """SIGTERM to the process that was started, as a service manager does.

        Returns its exit code; what is left of the group is killed. It is an error to take longer.
        """
        assert self.process is not None, "the server is not started"
        process = self.process
        process.terminate()
        try:
            code = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} still runs {deadline_s:g} s after SIGTERM") from None
        finally:
            self.kill()
        return code

    def restart(self) -> None:
        """Kill it if it runs, and start it at the same port and in the same folder."""
        self.kill()
        self.start()

    def _accepts(self) -> bool:
        assert self.process is not None
        if (code := self.process.poll()) is not None:
            raise AssertionError(f"{self} ended at its start with code {code}:\n{self.log}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.process.wait()
        self.process = None
        # The group's other members have been told to die too; their socket shows when they have.
        wait_for(lambda: is_free(self.port), what=f"port {self.port} is free after the kill")

    def __enter__(self) -> Self:
        return self if self.process is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self.log:
            print(f"--- log of {self}\n{self.log}")  # pytest shows it with the failed test
        self.kill()

    def __repr__(self) -> str:
        state = f"pid {self.process.pid}" if self.process else "not running"
        return f"<Server {' '.join(self.command[1:])} ({state})>"
