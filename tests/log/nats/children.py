"""Processes of their own that use a log in NATS; see ``tests.log.children``."""

from __future__ import annotations

from tests.log.children import Child as _Child


class Child(_Child):
    """A process that does one deed of ``tests.log.nats.deeds``."""

    module = "tests.log.nats.deeds"
