"""The same stream in three WSGI frameworks, with middlewares around that do as middlewares do.

``/events`` and all else is Flask's (``tests.apps.basic``); ``/django/events`` is Django's, behind its own
gzip and session middlewares; ``/bare/events`` is no framework's. ``?through=NAME`` puts a middleware of
``MIDDLEWARES`` around all of them.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import StreamingHttpResponse
from django.urls import path
from flask import Response, request, send_file, session

from penstock import Penstock
from penstock.doors.ask import check_ask
from penstock.doors.wsgi import Answer, Door
from tests.apps.basic import app as flask_app
from tests.apps.basic import sse
from tests.doors import inside

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

bus = Penstock("sqlite:///penstock.db")
door = Door(lambda: bus.engine)


def answer(environ: WSGIEnvironment) -> Answer:
    channels = parse_qs(environ["QUERY_STRING"])["channel"]
    return door.answer(environ, check_ask(channels)._replace(last_event_id=environ.get("HTTP_LAST_EVENT_ID")))


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    status, headers, body = answer(environ)
    start_response(f"{status} -", headers)
    return body


def events(request: WSGIRequest) -> StreamingHttpResponse:
    request.session["seen"] = "yes"
    status, headers, body = answer(request.environ)
    return StreamingHttpResponse(body, status=status, headers=dict(headers))


urlpatterns = [path("events", events)]
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=[
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
)
django.setup()
flask_app.secret_key = "of a test"


@flask_app.get("/events-of-a-session")
def events_of_a_session() -> Response:
    session["seen"] = "yes"
    return sse.stream(request.args["channel"])


@flask_app.get("/events-once-told")
def events_once_told() -> Response:
    inside.reach("view")
    return sse.stream(request.args["channel"])


@flask_app.get("/slow")
def slow() -> str:
    inside.reach("slow")
    return "finished"


@flask_app.get("/file")
def file() -> Response:
    return send_file(__file__, mimetype="text/plain")


@flask_app.get("/inside")
def inside_of_the_worker() -> dict[str, Any]:
    return inside.look()


@flask_app.get("/address")
def address() -> str:
    return request.environ["REMOTE_ADDR"] or "none"


def generator(app: WSGIApplication) -> WSGIApplication:
    """Calls the app only when its first bytes are asked for."""

    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = app(environ, start_response)
        try:
            yield from body
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    return run


def own_head(app: WSGIApplication) -> WSGIApplication:
    """Has a ``start_response`` of its own, and adds a header."""

    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Added", "was here")], exc_info)

        return app(environ, start)

    return run


def collected(
    app: WSGIApplication, pack: Callable[[bytes], bytes], *more: tuple[str, str]
) -> WSGIApplication:
    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        heads: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            heads.append((status, headers))

        whole = app(environ, start)
        body = pack(b"".join(whole))
        close = getattr(whole, "close", None)
        if close is not None:
            close()
        status, headers = heads[-1]
        start_response(status, [*headers, *more, ("Content-Length", str(len(body)))])
        return [body]

    return run


def buffering(app: WSGIApplication) -> WSGIApplication:
    """Collects the whole body to tell its length."""
    return collected(app, bytes)


def zipping(app: WSGIApplication) -> WSGIApplication:
    return collected(app, gzip.compress, ("Content-Encoding", "gzip"))


def failing(app: WSGIApplication) -> WSGIApplication:
    """Finds fault with the answer after the view has given it."""

    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = app(environ, start_response)
        try:
            raise RuntimeError("not this one")
        except RuntimeError:
            start_response("500 Not This One", [("Content-Type", "text/plain")], sys.exc_info())
        inside.kept.append((body, environ))  # as a report of the error may
        return [b"it failed"]

    return run


def refusing(app: WSGIApplication) -> WSGIApplication:
    """Sends another status, and everything else as it is."""

    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response("503 Not Now", headers, exc_info)

        inside.kept.append(environ)
        return app(environ, start)

    return run


def raising(app: WSGIApplication) -> WSGIApplication:
    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        inside.kept.append((app(environ, start_response), environ))
        raise RuntimeError("not this one either")

    return run


def unmarking(app: WSGIApplication) -> WSGIApplication:
    """Sends on only the headers that it knows."""

    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [each for each in headers if each[0] == "Content-Type"], exc_info)

        return app(environ, start)

    return run


MIDDLEWARES = {
    middleware.__name__: middleware
    for middleware in (generator, own_head, buffering, zipping, failing, refusing, raising, unmarking)
}
MOUNTS: dict[str, WSGIApplication] = {"/django": WSGIHandler(), "/bare": bare}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.file_wrapper"] = inside.ReadFile
    chosen: WSGIApplication = flask_app
    for mount, mounted in MOUNTS.items():
        if environ["PATH_INFO"].startswith(mount + "/"):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = mount, environ["PATH_INFO"].removeprefix(mount)
            chosen = mounted
    for name in parse_qs(environ["QUERY_STRING"]).get("through", []):
        chosen = MIDDLEWARES[name](chosen)
    return chosen(environ, start_response)
