"""The facts of faces, with the oldest release of each framework that is supported."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doors.servers import ALL, Env, Make, Serve
from tests.faces.cells import ASGI_FACES, WSGI_FACES
from tests.faces.facts import Facts, channel
from tests.support.oldest import PACKAGES, need_oldest, oldest, with_oldest
from tests.support.processes import Server, environment

pytestmark = pytest.mark.thorough
__all__ = ["channel"]

NEEDS = {
    "starlette": ("starlette",),
    "fastapi": ("fastapi", "starlette"),
    "quart": ("quart",),
    "django": ("django",),
    "flask": ("flask",),
}


def serve(make: Serve, app: str, packages: tuple[str, ...], folder: Path, env: Env) -> Server:
    return make(folder, {**env, **with_oldest(*packages)}, app)


def cells() -> Iterator[tuple[str, Make]]:
    for faces, doors in (
        (ASGI_FACES, ("uvicorn", "uvicorn-push")),
        (WSGI_FACES, ("waitress", "gunicorn-push")),
    ):
        for face, app in faces.items():
            for door in doors:
                make = functools.partial(serve, ALL[door].make, app, NEEDS[face])
                yield f"{face} {oldest(face)} on {door}", make


CELLS = dict(cells())
MARKS = {cell: need_oldest(*NEEDS[cell.split()[0]]) for cell in CELLS}


@pytest.mark.parametrize(
    "package", [pytest.param(name, marks=need_oldest(name)) for name in PACKAGES if name in NEEDS]
)
def test_it_is_the_oldest_that_is_imported(package: str) -> None:
    ask = f"import {package}, importlib.metadata as m; print({package}.__file__, m.version({package!r}))"
    command = [sys.executable, "-c", ask]
    env = environment(with_oldest(package))
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    assert f"/.oldest/{package}/" in told[0]
    assert oldest(package).removesuffix(".0") == told[1].removesuffix(".0")


class TestFaces(Facts):
    """Each fact in each cell."""
