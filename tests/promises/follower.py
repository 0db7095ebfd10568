"""A process that follows a channel and tells when each event came.

    python -m tests.promises.follower URL CHANNEL

For each event it prints a line, ``data time``, by the clock that all processes of a machine share; the
first line, ``ready``, says that it follows.
"""

from __future__ import annotations

import sys
import time

from penstock import Penstock

if __name__ == "__main__":
    url, channel = sys.argv[1:]
    with Penstock(url) as bus, bus.subscribe(channel) as records:
        print("ready", flush=True)
        for record in records:
            print(record.data, time.monotonic(), flush=True)
