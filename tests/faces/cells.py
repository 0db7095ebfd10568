"""Every face on every door: the cells of the table."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from tests.doors.servers import ALL, Make

ASGI_DOORS = [
    "uvicorn", "hypercorn", "granian", "daphne", "gunicorn-asgi", "uvicorn-push", "uvicorn-push-asyncio",
]  # fmt: skip
WSGI_DOORS = ["gunicorn-push", "gevent-push", "gevent", "waitress", "development"]

ASGI_FACES = {
    "starlette": "tests.apps.asgi:app",
    "fastapi": "tests.apps.fastapi_app:app",
    "quart": "tests.apps.quart_app:app",
    "django": "tests.apps.django_app:asgi",
}
WSGI_FACES = {
    "flask": "tests.apps.basic:app",
    "django": "tests.apps.django_app:wsgi",
}
# Flask's development server serves nothing but Flask well; Django's own is in Django's tests.
NOT_THERE = {("django", "development")}


def cells(faces: dict[str, str], doors: Sequence[str]) -> dict[str, Make]:
    """What makes the server of each cell, by its name."""
    return dict(_cells(faces, doors))


def _cells(faces: dict[str, str], doors: Sequence[str]) -> Iterator[tuple[str, Make]]:
    assert set(doors) <= ALL.keys()
    for face, app in faces.items():
        for door in doors:
            if (face, door) not in NOT_THERE:
                yield f"{face} on {door}", functools.partial(ALL[door].make, app=app)
