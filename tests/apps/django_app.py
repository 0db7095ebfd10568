"""The routes of ``tests.apps.basic`` in Django, for servers of both kinds: ``asgi`` and ``wsgi``.

``MIDDLEWARES`` in the environment names those around it, outermost first: ``gzip``, ``conditional``,
``common``, ``session``, ``locale``, ``csrf``. With ``VIEWS=async`` the streams are answered by an async view.
``/tasks`` tells how many tasks the server's loop has.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

MIDDLEWARES = {
    "gzip": "django.middleware.gzip.GZipMiddleware",
    "conditional": "django.middleware.http.ConditionalGetMiddleware",
    "common": "django.middleware.common.CommonMiddleware",
    "session": "django.contrib.sessions.middleware.SessionMiddleware",
    "locale": "django.middleware.locale.LocaleMiddleware",
    "csrf": "django.middleware.csrf.CsrfViewMiddleware",
}


def penstock() -> dict[str, object]:
    found: dict[str, object] = {}
    for name, text in os.environ.items():
        if name.startswith("PENSTOCK_"):
            try:
                found[name.removeprefix("PENSTOCK_")] = json.loads(text)
            except json.JSONDecodeError:
                found[name.removeprefix("PENSTOCK_")] = text
    return found


settings.configure(
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["penstock.django"],
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["console"], "level": "INFO"},
    },
    MIDDLEWARE=[MIDDLEWARES[name] for name in os.environ.get("MIDDLEWARES", "").split()],
    PENSTOCK=penstock(),
    ROOT_URLCONF=__name__,
    SECRET_KEY="test",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
django.setup()

from penstock import StreamInfo  # noqa: E402
from penstock import django as penstock_django  # noqa: E402
from penstock.django import views  # noqa: E402


@penstock_django.predicate
def follows(stream: StreamInfo, channel: str) -> bool:
    return channel in stream.channels


def wanted(request: HttpRequest) -> dict[str, Any]:
    query = request.GET
    tells = query.get("tells")  # the channel where it is told that the stream is over
    return {
        "last": int(query["last"]) if "last" in query else None,
        "after": query.get("after"),
        "user": query.get("user"),
        "until": float(query["until"]) if "until" in query else None,
        "on_close": (lambda: penstock_django.publish(tells, "over")) if tells else None,
    }


def dressed(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if "cookie" in request.GET:
        response.set_cookie("seen", request.GET["cookie"])
    if hasattr(request, "session"):
        request.session["streams"] = request.session.get("streams", 0) + 1
    return response


def events(request: HttpRequest) -> HttpResponseBase:
    return dressed(
        request, penstock_django.stream(request, *request.GET.getlist("channel"), **wanted(request))
    )


async def aevents(request: HttpRequest) -> HttpResponseBase:
    return dressed(
        request, await penstock_django.astream(request, *request.GET.getlist("channel"), **wanted(request))
    )


def authorize(request: HttpRequest, channel: str) -> bool:
    return channel.startswith("open")


def kick(request: HttpRequest) -> HttpResponse:
    if "channel" in request.POST:
        return HttpResponse(str(penstock_django.kick(follows, request.POST["channel"])))
    return HttpResponse(str(penstock_django.kick(request.POST["user"])))


def publish(request: HttpRequest) -> HttpResponse:
    form = request.POST
    position = penstock_django.publish(
        form["channel"], form["data"], event=form.get("event"), key=form.get("key")
    )
    return HttpResponse(str(position))


def end(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(penstock_django.end(request.POST["channel"])))


def stats(request: HttpRequest) -> JsonResponse:
    return JsonResponse(penstock_django.stats().to_dict())


def ping(request: HttpRequest) -> HttpResponse:
    return HttpResponse("pong")


def pid(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(os.getpid()))


async def tasks(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(asyncio.all_tasks())))


def threads(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(threading.active_count()))


def drain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(penstock_django.drain()))


urlpatterns = [
    path("events", aevents if os.environ.get("VIEWS") == "async" else events),
    path("named", views.stream, {"authorize": authorize}),
    path("denied", views.stream),
    path("kick", csrf_exempt(kick)),
    path("publish", csrf_exempt(publish)),
    path("end", csrf_exempt(end)),
    path("stats", stats),
    path("ping", ping),
    path("pid", pid),
    path("tasks", tasks),
    path("threads", threads),
    path("drain", csrf_exempt(drain)),
]

asgi = ASGIHandler()
wsgi = WSGIHandler()
