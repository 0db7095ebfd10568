"""The systems that are measured side by side, each in a file of its own.

The rule of this folder: a file has one ``SYSTEM`` (or a few that differ in an option), which knows how it is
installed, at which versions, and how it is started. All serve ``GET /stream`` and take ``POST /pub``, whose
body is sent to all streams as one event. What a file needs beside it (an app, a configuration) has its name.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.systems import (
    bare,
    better_sse,
    django_eventstream,
    flask_sse,
    nchan,
    penstock,
    sse_starlette,
)
from benchmarks.systems.system import System

__all__ = ["SYSTEMS", "System"]

SYSTEMS: Mapping[str, System] = {
    system.name: system
    for system in (
        bare.SYSTEM,
        penstock.UVICORN,
        penstock.UVICORN_ASYNCIO,
        penstock.GUNICORN,
        nchan.SYSTEM,
        better_sse.SYSTEM,
        sse_starlette.SYSTEM,
        flask_sse.SYSTEM,
        django_eventstream.SYSTEM,
        django_eventstream.STORED,
    )
}
