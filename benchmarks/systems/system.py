"""What a system is to the measurement, and how its processes are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import Server

# Whoever takes all memory is to be the first to die of it, and not what else runs on the machine.
_EXPENDABLE = ["/bin/sh", "-c", 'echo 500 2>/dev/null >/proc/self/oom_score_adj; exec "$@"', "sh"]

Versions = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Running:
    """A system that has been started.

    Args:
        servers: its processes, by a name that says which part they are; CPU time and memory are told for
            each part. The first part is the server itself. Children of a process count with it.
    """

    servers: Mapping[str, Server]

    @property
    def port(self) -> int:
        return next(iter(self.servers.values())).port

    def ended(self) -> list[str]:
        """The parts that have died, with what they said last."""
        return [
            f"{name} ended with code {code}: {_last_words(server.log)}"
            for name, server in self.servers.items()
            if server.process is not None and (code := server.process.poll()) is not None
        ]


@dataclass(frozen=True, slots=True)
class System:
    """One that is measured.

    Args:
        name: as on the command line and in tables.
        about: what it is and how it was set up.
        rate: deliveries of 64 bytes a second to be expected of it: sizes its work, so that it takes seconds.
        install: makes it ready to be started, once; returns versions. Raises ``NotInstalled``.
        start: starts it at a port, with a folder for its files; ends it when the context ends.
        late: it sends not even the head of a stream before the stream's first event.
    """

    name: str
    about: str
    rate: int
    install: Callable[[], Versions]
    start: Callable[[int, Path], AbstractContextManager[Running]]
    late: bool = False


@contextmanager
def serve(
    command: Sequence[str | Path],
    folder: Path,
    *,
    port: int,
    env: Mapping[str, str] | None = None,
    beside: Mapping[str, Server] | None = None,
) -> Iterator[Running]:
    """Run the server's command, beside parts that run already."""
    words = [*_EXPENDABLE, *map(str, command)]
    with Server(words, folder, port=port, env=env) as server:
        yield Running({"server": server, **(beside or {})})


def _last_words(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "(nothing)"
