"""What others need to test what they build on Penstock; of no use in production.

``WSGIClient``, ``ASGIClient`` and ``AsyncASGIClient`` are test clients for streams without an end.
``check_log`` proves a log of one's own against the contract in ``penstock.log.base``. Nothing here needs
a test runner; ``penstock.testing.pytest_plugin`` has fixtures for those who use pytest.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.testing import log_checks, log_life_checks, log_thread_checks, log_trim_checks
from penstock.testing.asgi_clients import ASGIClient, AsyncASGIClient
from penstock.testing.faults import ProtocolFault, StreamOver, StreamTimeout
from penstock.testing.received import ReceivedEvent
from penstock.testing.storage import Check, Fresh, Opener
from penstock.testing.streams import AsyncEventStream, EventStream
from penstock.testing.wsgi import WSGIClient

__all__ = [
    "LOG_CHECKS",
    "ASGIClient",
    "AsyncASGIClient",
    "AsyncEventStream",
    "Check",
    "EventStream",
    "Fresh",
    "Opener",
    "ProtocolFault",
    "ReceivedEvent",
    "StreamOver",
    "StreamTimeout",
    "WSGIClient",
    "check_log",
]

LOG_CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        *log_checks.CHECKS,
        *log_trim_checks.CHECKS,
        *log_life_checks.CHECKS,
        *log_thread_checks.CHECKS,
    )
}
"""The single checks of ``check_log`` by their names, which say what must hold."""


def check_log(fresh: Fresh) -> None:
    """Prove that a log keeps the contract of ``penstock.log.base.Log``. Takes some seconds.

    Args:
        fresh: makes a new, empty storage, and returns an opener: a callable that makes a new log on that
            storage, not opened yet. It is called for each check, and each check opens several logs on
            one storage, as several processes would, and closes them.

    Raises:
        AssertionError: for the first promise that is broken; a note on it names the check.

    Example:
        A log whose storage is a folder::

            def fresh():
                folder = tempfile.mkdtemp()
                return lambda: MyLog(folder)

            check_log(fresh)

        With pytest, each check as a test of its own::

            @pytest.mark.parametrize("name", LOG_CHECKS)
            def test_my_log(name, tmp_path):
                LOG_CHECKS[name](lambda: partial(MyLog, tempfile.mkdtemp(dir=tmp_path)))
    """
    for name, check in LOG_CHECKS.items():
        try:
            check(fresh)
        except BaseException as error:
            error.add_note(f"in the check {name!r} of penstock.testing.LOG_CHECKS")
            raise
