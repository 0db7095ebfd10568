"""The apps of ``asgi`` and ``basic``; their engines wait ``PAUSED_S`` for clients that have paused."""

from __future__ import annotations

import os

from penstock.engine import patience
from tests.apps.asgi import app as asgi
from tests.apps.basic import app as wsgi

__all__ = ["asgi", "wsgi"]

patience.PAUSED_S = float(os.environ["PAUSED_S"])
