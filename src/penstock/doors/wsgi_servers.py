"""What the WSGI door must know of the server around it, which the standard (PEP 3333) does not tell.

How many threads it has, whether it is about to stop, and which socket is the client's. Each server's
inner names are used here and nowhere else; where they are missing, the door goes without.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from penstock import greenlets
from penstock.doors.places import usable_descriptors

SERVE_WITH_THREADS = "Serve with threads: gunicorn --threads 64, or waitress"
SPEAK_HTTP_1 = "Let a proxy speak HTTP/2 with browsers, and HTTP/1.1 with gunicorn"
UNKNOWN_THREADS = 8  # a server that we do not know: few enough for most
DEVELOPMENT_STREAMS = 1_000  # Flask's and Django's development servers make a thread for each request


class Server(NamedTuple):
    """A WSGI server.

    Attributes:
        name: as it calls itself.
        streams: how many streams may hold one of its threads; others stay free for other requests.
        threads: how many threads it has; None if it cannot tell, or if it makes them as it needs them.
        stopping: tells whether it was asked to stop; None if it cannot tell.
        cure: what an operator is told to do where there is no place for any stream.
        unit: what a stream holds: a thread, or a greenlet.
    """

    name: str
    streams: int
    threads: int | None = None
    stopping: Callable[[], bool] | None = None
    cure: str = SERVE_WITH_THREADS
    unit: str = "thread"


def find_server(environ: dict[str, Any]) -> Server:
    """The server of this request. To be called in the thread that handles it."""
    name = str(environ.get("SERVER_SOFTWARE", "an unknown server"))
    if is_http2(environ):
        return Server(f"{name} over HTTP/2, on one connection,", 0, cure=SPEAK_HTTP_1)
    if serves_one_at_a_time(environ):
        return Server(f"{name} (one request at a time)", 0)
    worker = _gunicorn_worker() if "gunicorn" in name else None
    # Where gevent has patched threads, those of a pool are greenlets, and as many as before.
    if worker is not None and (hasattr(worker, "tpool") or not greenlets.is_one()):
        threads = int(worker.cfg.threads)
        return Server(name, _leave_some(threads), threads, asked_to_stop(worker))
    if (channel := _waitress_channel(environ)) is not None:
        known: int | None = getattr(getattr(getattr(channel, "server", None), "adj", None), "threads", None)
        return Server("waitress", _leave_some(known or UNKNOWN_THREADS), known)
    if greenlets.is_one():
        return _of_greenlets(name, worker)
    if name.startswith(("Werkzeug", "penstock.testing")) or _django_handler(environ) is not None:
        return Server(name, DEVELOPMENT_STREAMS)
    return Server(name, _leave_some(UNKNOWN_THREADS))


def serves_one_at_a_time(environ: dict[str, Any]) -> bool:
    """Whether an answer that takes long keeps the client's own other requests waiting, at the least."""
    if (handler := _django_handler(environ)) is not None:  # it always says that it has threads
        return not hasattr(handler.server, "process_request_thread")
    return not (environ.get("wsgi.multithread") or greenlets.is_one()) or is_http2(environ)


def is_http2(environ: dict[str, Any]) -> bool:
    """Whether this is gunicorn's HTTP/2: it answers the requests of a connection one after the other."""
    return environ.get("SERVER_PROTOCOL") == "HTTP/2.0" and "gunicorn.http2.send_trailers" in environ


def _of_greenlets(name: str, worker: Any) -> Server:
    """A server that makes a greenlet for each connection, up to a limit of its own or of descriptors."""
    most = usable_descriptors() // 2  # a stream has its client's, and one to watch it by
    stopping: Callable[[], bool] | None = None
    if (server := getattr(_pywsgi_handler(), "server", None)) is not None:
        most = min(most, getattr(server.pool, "size", None) or most)
        stopping = functools.partial(_has_stopped, server)
    if worker is not None:
        most = min(most, int(getattr(worker, "worker_connections", most)))
        stopping = asked_to_stop(worker)
    return Server(name, _leave_some(most), most, stopping, unit="greenlet")


def _has_stopped(server: Any) -> bool:
    return not server.started


def _leave_some(threads: int) -> int:
    """A quarter of the threads, and at least one, stays free for other requests."""
    return max(0, threads - max(1, threads // 4))


def _gunicorn_worker() -> Any:
    """The gunicorn worker that called us, found on the stack: nothing else leads to it.

    A view may run in a thread of its own (an ``async def`` view does); the main thread's stack shows the
    worker too.
    """
    main = sys._current_frames().get(threading.main_thread().ident or 0)
    for found in _owners("gunicorn.workers.", sys._getframe(1), main, greenlets.main_frame()):
        if hasattr(found, "alive") and hasattr(getattr(found, "cfg", None), "threads"):
            return found
    return None


def _pywsgi_handler() -> Any:
    """The handler of gevent's server for this request, likewise."""
    for found in _owners("gevent.pywsgi", sys._getframe(1)):
        if hasattr(found, "server") and hasattr(found, "socket"):
            return found
    return None


def _django_handler(environ: dict[str, Any]) -> Any:
    """The handler of Django's development server for this request, likewise."""
    if not str(environ.get("SERVER_SOFTWARE", "")).startswith("WSGIServer/"):
        return None
    for found in _owners("django.core.servers.basehttp", sys._getframe(1)):
        if hasattr(found, "server") and hasattr(found, "connection"):
            return found
    return None


def _owners(module: str, *frames: FrameType | None) -> Iterator[Any]:
    """Whose methods of some module are on the stack."""
    frame: FrameType | None
    for frame in frames:
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith(module):
                yield frame.f_locals.get("self")
            frame = frame.f_back


def asked_to_stop(worker: Any) -> Callable[[], bool]:
    """Tells whether a gunicorn worker is to end."""
    parent = os.getppid()  # a worker whose arbiter was killed ends without having been told
    return lambda: not worker.alive or os.getppid() != parent


def client_socket(environ: dict[str, Any]) -> socket.socket | None:
    """The client's socket, where the server shows it."""
    channel = _waitress_channel(environ)
    shown = (
        environ.get("gunicorn.socket") or environ.get("werkzeug.socket") or getattr(channel, "socket", None)
    )
    if shown is None:
        shown = getattr(_django_handler(environ), "connection", None)
    if shown is None and greenlets.is_one():
        shown = getattr(_pywsgi_handler(), "socket", None)
    return shown if hasattr(shown, "fileno") else None


def _waitress_channel(environ: dict[str, Any]) -> Any:
    """Waitress' connection: what it puts into the environment is a method of it."""
    return getattr(environ.get("waitress.client_disconnected"), "__self__", None)
