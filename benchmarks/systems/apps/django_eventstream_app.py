"""Served by uvicorn, in an environment of its own; see ../django_eventstream.py."""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import os
import sys
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

database = os.environ.get("DATABASE")  # where events are stored, if they are
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": database or ":memory:",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            },
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django_eventstream"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of no use here",
    **({"EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.DjangoModelStorage"} if database else {}),
)
django.setup()

from django_eventstream import send_event  # noqa: E402  # they need the settings
from django_eventstream import urls as stream_urls  # noqa: E402


def publish(request: HttpRequest) -> HttpResponse:
    send_event("bench", "message", request.body.decode(), json_encode=False)
    return HttpResponse(status=204)


urlpatterns: list[Any] = [
    path("pub", publish),
    path("stream", include(stream_urls), {"channels": ["bench"]}),
]
application = get_asgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
