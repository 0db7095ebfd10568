"""The load generator, in C: compiled on the spot, run in a process of its own, its account read from JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.systems.install import compiled

SOURCES = [
    Path(__file__).parent / name
    for name in ("load.c", "reader.c", "tally.c", "publisher.c", "processes.c", "options.c")
]

Account = dict[str, Any]  # what load.c prints at its end


class LoadFailed(Exception):
    """The generator could not do its work; its message says why."""


def generate(
    port: int,
    *,
    streams: int,
    events: int,
    payload: int = 64,
    rate: float = 0,
    late: bool = False,
    handshake_s: float = 60,
    quiet_s: float = 3,
    deadline_s: float = 60,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> Account:
    """Open streams, publish events, and account for every delivery.

    Args:
        port: where the server listens, on 127.0.0.1.
        streams: how many subscribers.
        events: how many events are published, by one connection.
        payload: bytes of each event, 33 at least.
        rate: events a second; 0: the next as soon as the last is answered.
        late: the server answers a subscriber only with its first event.
        handshake_s: how long a stream may take to be answered, and all to be subscribed.
        quiet_s: what has not come for so long is lost.
        deadline_s: of publishing and delivering.
        groups: processes whose CPU time and memory are told, by name.
    """
    command: list[str | Path] = [compiled("load", SOURCES, "-pthread")]
    command += [f"--port={port}", f"--streams={streams}", f"--events={events}", f"--payload={payload}"]
    command += [
        f"--rate={rate}",
        f"--handshake={handshake_s}",
        f"--quiet={quiet_s}",
        f"--deadline={deadline_s}",
    ]
    command += ["--late"] if late else []
    command += [f"--group={name}:{','.join(map(str, pids))}" for name, pids in (groups or {}).items()]
    most_s = 4 * handshake_s + quiet_s + deadline_s + 60  # it ends by itself; this is for when it does not
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=most_s, check=False)
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"the load generator did not end within {most_s:g} s") from None
    if done.returncode:
        raise LoadFailed(done.stderr.strip() or f"the load generator ended with code {done.returncode}")
    account: Account = json.loads(done.stdout)
    return account
