"""The chat room in Django: the routes of ``app.py``, in one file, for ASGI and for WSGI.

A project has ``settings.py`` and ``urls.py`` for what stands here first and last.

    uvicorn django_app:asgi --http penstock.doors.uvicorn:PushProtocol
    gunicorn -k penstock.doors.gunicorn.PushWorker --threads 4 django_app:wsgi
"""

import os
import secrets
import time
from pathlib import Path

import django
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler, StaticFilesHandler
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import path
from django.views.decorators.http import require_POST
from presence import People  # the file beside this one: who is here

from penstock import errors
from penstock.django import get_bus, publish, stream

STATIC = Path(__file__).parent / "static"

settings.configure(
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.staticfiles", "penstock.django"],
    # Nobody logs in here, so there is no cookie that a forged request could borrow. Where there is one,
    # CsrfViewMiddleware stands here, and the page sends X-CSRFToken with what it says.
    MIDDLEWARE=[],
    PENSTOCK={"URL": os.environ.get("PENSTOCK_URL", "sqlite:///chat.db")},
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_hex(),
    STATIC_URL="/static/",
    STATICFILES_DIRS=[STATIC],
)
django.setup()

people = People(get_bus())


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse((STATIC / "index.html").read_bytes())


def events(request: HttpRequest) -> HttpResponseBase:
    # One stream for both channels. A new page first gets their last 500 events; a page that comes back
    # gets what it missed, however much that is.
    user = request.GET.get("user", "").strip()[:40]
    if not user or request.method != "GET":
        return stream(request, "chat", "people", last=500)
    people.enter(user, is_new="Last-Event-ID" not in request.headers)
    return stream(request, "chat", "people", last=500, on_close=lambda: people.leave(user))


@require_POST
def say(request: HttpRequest) -> HttpResponse:
    user = request.POST.get("user", "").strip()
    text = request.POST.get("text", "").strip()
    key = request.POST.get("key")  # a page that had no answer sends the message again with the same key
    if not 1 <= len(user) <= 40:
        return HttpResponse("A name has 1 to 40 characters.", status=400)
    if not 1 <= len(text) <= 2000:
        return HttpResponse("A message has 1 to 2000 characters.", status=400)
    message = {"user": user, "text": text, "at": time.time(), "key": key}
    try:
        position = publish("chat", message, key=key or None)
    except errors.InvalidEvent:  # not the error's own words: they repeat what was sent, and this is HTML
        return HttpResponse("A key has 1 to 200 characters, in one line.", status=400)
    except (errors.LogUnavailable, errors.AppendUnsure):
        words = "The log is away for now. The message may be sent again, with the same key."
        return HttpResponse(words, status=503)
    return JsonResponse({"id": str(position)}, status=201)


urlpatterns = [path("", index), path("events", events), path("say", say)]

asgi = ASGIStaticFilesHandler(get_asgi_application())
wsgi = StaticFilesHandler(get_wsgi_application())
