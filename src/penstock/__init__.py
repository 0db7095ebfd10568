"""Durable server-sent events for the Python web framework you already run.

``Penstock`` publishes to a log and subscribes to it; ``penstock.flask`` pours it to browsers.
"""

from penstock import errors
from penstock.bus import Penstock
from penstock.core.event import Event
from penstock.core.position import Gap, GapReason, Position
from penstock.core.record import Record
from penstock.core.rights import StreamInfo
from penstock.engine.stats import Stats
from penstock.errors import AppendUnsure, GapError, LogUnavailable, PenstockError
from penstock.options import Options

__all__ = [
    "AppendUnsure",
    "Event",
    "Gap",
    "GapError",
    "GapReason",
    "LogUnavailable",
    "Options",
    "Penstock",
    "PenstockError",
    "Position",
    "Record",
    "Stats",
    "StreamInfo",
    "errors",
]

__version__ = "0.1.0"
