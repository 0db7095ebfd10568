"""The facts of faces, for those that speak WSGI."""

from __future__ import annotations

from tests.faces.cells import WSGI_DOORS, WSGI_FACES, cells
from tests.faces.facts import Facts, channel

__all__ = ["channel"]

CELLS = cells(WSGI_FACES, WSGI_DOORS)


class TestFaces(Facts):
    """Each fact in each cell."""
