"""The routes of the project that these tests have in their own process."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path

from penstock.django import astream, publish, stream, views


def events(request: HttpRequest) -> HttpResponseBase:
    user: Any = request.user
    return stream(request, "chat", last=10, user=user.pk)


async def aevents(request: HttpRequest) -> HttpResponseBase:
    user: Any = await request.auser()
    return await astream(request, "chat", last=10, user=user.pk)


async def forgotten(request: HttpRequest) -> HttpResponseBase:
    return stream(request, "chat")


def say(request: HttpRequest) -> HttpResponse:
    publish("chat", request.POST["text"])
    return HttpResponse(status=204)


def even(request: HttpRequest, channel: str) -> bool:
    return channel.startswith("room/") and int(channel.removeprefix("room/")) % 2 == 0


async def aeven(request: HttpRequest, channel: str) -> bool:
    user: Any = await request.auser()
    return user.is_authenticated and even(request, channel)


class Even:
    """One that is neither a function nor a coroutine function."""

    async def __call__(self, request: HttpRequest, channel: str) -> bool:
        return even(request, channel)


urlpatterns = [
    path("admin/", admin.site.urls),
    path("events/", events),
    path("aevents/", aevents),
    path("forgotten/", forgotten),
    path("say/", say),
    path("news/", views.stream, {"channels": ["chat"], "last": 10}),
    path("all/", views.stream, {"channels": ["**"], "after": "earliest"}),
    path("members/", views.stream, {"channels": ["chat"], "login_required": True}),
    path("staff/", views.stream, {"channels": ["chat"], "permission": "penstock.view_record"}),
    path("mine/", views.stream, {"channels": ["chat"], "user": lambda request: request.GET["user"]}),
    path("until/", views.stream, {"channels": ["chat"], "until": lambda request: 1.0}),
    path("even/", views.stream, {"authorize": even}),
    path("aeven/", views.stream, {"authorize": aeven}),
    path("even-by-path/", views.stream, {"authorize": "tests.django.urls.even"}),
    path("even-by-object/", views.stream, {"authorize": Even()}),
    path("only-even/", views.stream, {"channels": ["room/1"], "authorize": even}),
    path("named/", views.stream),
]
