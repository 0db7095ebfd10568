"""A project with sessions and users in a database, for servers of both kinds: ``asgi`` and ``wsgi``.

``DATABASE`` in the environment is Django's setting of it, as JSON. Its tables are made when this is imported.
"""

from __future__ import annotations

import json
import os
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": json.loads(os.environ["DATABASE"])},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "penstock.django",
    ],
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["console"], "level": "INFO"},
    },
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    PENSTOCK={"KEEP_ALIVE": 60},
    ROOT_URLCONF=__name__,
    SECRET_KEY="test",
)
django.setup()

from django.contrib.auth import login  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402

from penstock.django import astream, publish, stats, stream, views  # noqa: E402

call_command("migrate", verbosity=0)
User.objects.get_or_create(username="alice")
django.db.connections.close_all()


def enter(request: HttpRequest) -> HttpResponse:
    login(request, User.objects.get(username="alice"))
    return HttpResponse("welcome")


def left() -> None:
    User.objects.filter(username="alice").update(first_name="left")


def events(request: HttpRequest) -> HttpResponseBase:
    user: Any = request.user
    request.session["visits"] = request.session.get("visits", 0) + 1
    return stream(request, "chat", user=user.pk, on_close=left)


async def aevents(request: HttpRequest) -> HttpResponseBase:
    user: Any = await request.auser()
    await request.session.aset("visits", await request.session.aget("visits", 0) + 1)
    return await astream(request, "chat", user=user.pk, on_close=left)


def visits(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.session.get("visits", 0)))


def users(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(User.objects.count()))


def name(request: HttpRequest) -> HttpResponse:
    return HttpResponse(User.objects.get(username="alice").first_name)


def told(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(stats().streams))


def say(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(publish("chat", request.GET["text"])))


urlpatterns = [
    path("enter", enter),
    path("events", events),
    path("aevents", aevents),
    path("members", views.stream, {"channels": ["chat"], "login_required": True}),
    path("visits", visits),
    path("users", users),
    path("name", name),
    path("streams", told),
    path("say", say),
]

asgi = ASGIHandler()
wsgi = WSGIHandler()
