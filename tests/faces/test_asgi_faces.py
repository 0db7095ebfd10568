"""The facts of faces, for those that speak ASGI."""

from __future__ import annotations

from tests.faces.cells import ASGI_DOORS, ASGI_FACES, cells
from tests.faces.facts import Facts, channel

__all__ = ["channel"]

CELLS = cells(ASGI_FACES, ASGI_DOORS)


class TestFaces(Facts):
    """Each fact in each cell."""
