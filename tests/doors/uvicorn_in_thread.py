"""A program with uvicorn in a thread, which stops when the program is told to: ``PORT [CERTIFICATE KEY]``."""

from __future__ import annotations

import signal
import sys
import threading

import uvicorn

from penstock.doors.uvicorn import PushProtocol


def main(port: str, certificate: str | None = None, key: str | None = None) -> None:
    config = uvicorn.Config(
        "tests.apps.asgi:app",
        port=int(port),
        http=PushProtocol,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    thread.start()
    told.wait()
    server.should_exit = True
    thread.join()
    print("the thread is over")


if __name__ == "__main__":
    main(*sys.argv[1:])
