"""System checks: what ``manage.py check`` tells before the first stream does.

An error is a setting that cannot work. A warning is something that works, and does harm: events that reach
some tabs only, a log that anybody can download, a middleware that holds events back. Django's own
GZipMiddleware does not, since a stream tells it that it is encoded already.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning
from django.http import HttpRequest
from django.utils.module_loading import import_string

from penstock.core import wire
from penstock.django.conf import KEYS, NAME, default_url, find_faults
from penstock.django.responses import StreamResponse
from penstock.errors import ConfigError
from penstock.log import open_log
from penstock.log.base import Log


def check_settings(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    """All that is wrong with Penstock's settings."""
    given = getattr(settings, NAME, {})
    found: list[CheckMessage] = [
        Error(fault.message, hint=fault.hint or None, id=fault.id) for fault in find_faults(given)
    ]
    given = given if isinstance(given, Mapping) else {}
    found += _authorize(given.get("AUTHORIZE"))
    found += _names_apart()
    url = given.get("URL", default_url())
    try:
        log = None if callable(url) else open_log(url)
    except ConfigError:  # told above
        log = None
    if log is not None:
        found += _log(log, url)
    return found


# What is tried with a stream: nothing else is run by a check.
_MAY_COMPRESS = re.compile(r"gzip|compress|brotli|zstd|minif", re.IGNORECASE)


def check_middlewares(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    """Whether what compresses responses leaves a stream as it is: each is given one."""
    return [
        Warning(
            f"{path} changes streams: under WSGI a client gets no event before the stream ends, unless its "
            "connection is handed over",
            hint="let it pass over responses that have a Content-Encoding, or are text/event-stream; or "
            "serve with gunicorn -k penstock.doors.gunicorn.PushWorker",
            id="penstock.W005",
        )
        for path in settings.MIDDLEWARE
        if _MAY_COMPRESS.search(path) and _changes_streams(path)
    ]


def _changes_streams(path: str) -> bool:
    chunk = b"data: " + b"x" * 1_000 + b"\n\n"
    response = StreamResponse(iter([chunk]), 200, list(wire.HEADERS))
    request = HttpRequest()
    request.method = "GET"
    request.META["HTTP_ACCEPT_ENCODING"] = "gzip, deflate, br, zstd"
    try:
        came_out: Any = import_string(path)(lambda request: response)(request)
        return came_out is not response or list(response.streaming_content) != [chunk]
    except Exception:  # it cannot be tried so; Django tells of those that cannot be imported
        return False


def check_deployment(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    """What nobody but the server knows: how many streams there can be. For ``check --deploy``."""
    given = getattr(settings, NAME, {})
    limited = isinstance(given, Mapping) and given.get("MAX_STREAMS") is not None
    if limited or not getattr(settings, "WSGI_APPLICATION", None):
        return []
    return [
        Info(
            "over WSGI a stream holds a thread of the server, unless the server hands its connections over; "
            "the limit is three quarters of the threads of gunicorn and waitress, and 6 on a server that "
            "does not tell how many it has",
            hint="serve with gunicorn -k penstock.doors.gunicorn.PushWorker, or over ASGI; or say how many "
            f"streams there may be: {NAME}['MAX_STREAMS']",
            id="penstock.I001",
        )
    ]


def _authorize(given: Any) -> Iterator[CheckMessage]:
    if not isinstance(given, str):
        return
    try:
        function = import_string(given)
    except ImportError as error:
        yield Error(
            f"{NAME}['AUTHORIZE']: {error}",
            hint="the dotted path of a function, such as 'shop.events.may_read'",
            id="penstock.E005",
        )
        return
    if not callable(function):
        yield Error(
            f"{NAME}['AUTHORIZE']: {given!r} is {type(function).__name__}, which cannot be called",
            hint="it is called with a request and the name of a channel, and tells whether it may be read",
            id="penstock.E005",
        )


def _names_apart() -> Iterator[CheckMessage]:
    for key in KEYS:
        if hasattr(settings, f"{NAME}_{key}"):
            yield Warning(
                f"the setting {NAME}_{key} is not read",
                hint=f'the settings of Penstock are one dict: {NAME} = {{"{key}": …}}',
                id="penstock.W001",
            )


def _log(log: Log, url: str) -> Iterator[CheckMessage]:
    if not log.shared and not settings.DEBUG:
        yield Warning(
            f"{NAME}['URL'] is {log.url!r}, a log that each process has to itself: what one worker or "
            "command publishes does not reach the streams of another, and a restart forgets it",
            hint="use 'sqlite:///…', unless all runs in one process",
            id="penstock.W002",
        )
    file = getattr(log, "path", None)
    if not isinstance(file, Path):
        return
    for alias, database in settings.DATABASES.items():
        if "sqlite" in database.get("ENGINE", "") and _same(file, database.get("NAME")):
            yield Error(
                f"{NAME}['URL'] is the file of the database {alias!r}, {file}",
                hint=f"a log has a file of its own: {default_url()!r}",
                id="penstock.E006",
            )
    for name in ("MEDIA_ROOT", "STATIC_ROOT"):
        folder = getattr(settings, name, None)
        if folder and file.is_relative_to(os.path.realpath(folder)):
            yield Warning(
                f"the log {file} lies in {name}, where whoever knows its name can download it",
                hint="put it where no web server looks",
                id="penstock.W003",
            )
    base = getattr(settings, "BASE_DIR", None)
    if base is not None and not url.startswith("sqlite:////"):
        yield Warning(
            f"{NAME}['URL'] is {url!r}: a file in the folder where each process happens to be started, so a "
            "worker or a command that is started elsewhere has another log",
            hint=f"give the whole path, as the default has it: {default_url()!r}",
            id="penstock.W004",
        )


def _same(file: Path, name: Any) -> bool:
    return bool(name) and os.path.realpath(str(name)) == str(file)
