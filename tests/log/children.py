"""Processes of their own that use a log: they tell what they did line by line, and may be killed.

with Child("append", path, "a", 100) as child:
    first = child.line()
    child.kill()
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.processes import ROOT, environment

NOBODY = 65534
_DEADLINE_S = 60.0


class Child:
    """A process that does one deed of ``tests.log.deeds``; ``uid`` is the user it becomes for that."""

    module = "tests.log.deeds"

    def __init__(self, deed: str, *arguments: object, uid: int | None = None) -> None:
        self.command = [sys.executable, "-m", self.module, deed, *map(str, arguments)]
        self._process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=environment({"DEEDS_UID": "" if uid is None else str(uid)}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what is read here is not held back where select() does not see it
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self) -> Any:
        """The next that it tells."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _DEADLINE_S)
        line = self._process.stdout.readline() if ready else b""
        assert line.endswith(b"\n"), f"{self} told no more: {line!r}\n{self._end()}"
        return json.loads(line)

    def tell(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def kill(self) -> list[Any]:
        """``kill -9``; what it had told till then and was not read yet."""
        assert self._process.stdout is not None
        self._process.kill()
        rest = self._process.stdout.readall().splitlines(keepends=True)  # type: ignore[attr-defined]
        self._process.wait()
        return [json.loads(line) for line in rest if line.endswith(b"\n")]

    def finish(self) -> list[Any]:
        """Wait for its end, which must be a good one; what it told and was not read yet."""
        told, errors = self._process.communicate(timeout=_DEADLINE_S)
        assert self._process.returncode == 0, f"{self}\n{errors.decode()}"
        assert not errors, errors.decode()
        return [json.loads(line) for line in told.splitlines()]

    def _end(self) -> str:
        self._process.kill()
        _, errors = self._process.communicate()
        return errors.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def __repr__(self) -> str:
        return f"<Child {' '.join(self.command[2:])} pid={self.pid}>"


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder, with their bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
