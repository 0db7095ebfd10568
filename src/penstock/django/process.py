"""What a process has of Penstock: one bus on the log that the settings name, made by its first use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver

from penstock import threads
from penstock.bus import DRAIN_TIMEOUT_S
from penstock.bus import Penstock as Bus
from penstock.core.position import Gap, Position
from penstock.core.record import Record
from penstock.django.conf import NAME, Settings
from penstock.engine.kicks import F, Predicates
from penstock.engine.stats import Stats
from penstock.subscriber import Subscriber

_mutex = threads.Lock()
_bus: Bus | None = None
_predicates = Predicates()  # functions of the program: they outlive a change of settings


def get_bus() -> Bus:
    """This process's ``penstock.Penstock``, as the setting ``PENSTOCK`` has it.

    What is done with it directly knows nothing of transactions.

    Raises:
        ConfigError: for settings that cannot work.
    """
    global _bus
    if _bus is not None:
        return _bus
    with _mutex:
        if _bus is None:
            settings = Settings.read()
            made = Bus(settings.url, **settings.options)
            made.predicates = _predicates
            _bus = made
        return _bus


@receiver(setting_changed, dispatch_uid="penstock.django")
def _forget_bus(*, setting: str, **_: Any) -> None:
    """A test has changed the settings: the next use makes a bus of the new ones."""
    global _bus
    if setting in (NAME, "BASE_DIR"):
        with _mutex:
            bus, _bus = _bus, None
        if bus is not None:
            bus.close()


def predicate(function: F) -> F:
    """Make a function known to ``kick``, under its name: a decorator. See ``penstock.Penstock.predicate``."""
    return _predicates.add(function)


def subscribe(
    *channels: str,
    after: Position | str | None = None,
    last: int | None = None,
    on_gap: Callable[[Gap], None] | None = None,
) -> Subscriber:
    """Follow channels in Python: in a management command, for one. See ``penstock.Penstock.subscribe``."""
    return get_bus().subscribe(*channels, after=after, last=last, on_gap=on_gap)


def asubscribe(
    *channels: str,
    after: Position | str | None = None,
    last: int | None = None,
    on_gap: Callable[[Gap], None] | None = None,
) -> AsyncIterator[Record]:
    """As ``subscribe``, for coroutines."""
    return get_bus().asubscribe(*channels, after=after, last=last, on_gap=on_gap)


def stats() -> Stats:
    """What this process can tell of its part in the log. See ``penstock.Stats``."""
    return get_bus().stats()


def drain(timeout: float = DRAIN_TIMEOUT_S) -> bool:
    """End all streams of this process. See ``penstock.Penstock.drain``."""
    return get_bus().drain(timeout)
