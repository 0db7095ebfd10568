"""A client that is a program of its own: what it wrote so far, as it comes."""

from __future__ import annotations

import subprocess
import threading
from types import TracebackType
from typing import Self

from tests.support.wait import DEADLINE_S


class Program:
    """A running command; killed at the end of a ``with`` block.

    Attributes:
        output: what it has written to stdout.
    """

    def __init__(self, *command: str) -> None:
        self.output = b""
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            while chunk := stdout.read1():  # type: ignore[attr-defined]
                self.output += chunk

    @property
    def lines(self) -> list[str]:
        """The lines that are complete."""
        return self.output[: self.output.rfind(b"\n") + 1].decode().split("\n")[:-1]

    def wait(self) -> int:
        """Wait for its end, and for the last that it has written; give its exit code."""
        code = self.process.wait(DEADLINE_S)
        self._thread.join()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
