"""A stream holds no database connection while it waits.

Django gives a request's connections back when its response is closed, which for a stream may be hours after
its view had its last query. So they are given back when the body begins: by then every middleware is done,
and a session that was changed is saved. A connection to be kept (``CONN_MAX_AGE``) is closed too, since it
belongs to the thread that made it, and where no thread is free for an hour, nobody else could use it.

Under ASGI the synchronous part of a request has a thread of its own, and the connections are that
thread's. It waits as long as the response takes, and a stream would keep one thread each; so it is let go
too. Of asgiref's inside this uses what ``_executors`` names; where it is missing, the thread stays.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from concurrent.futures import Executor
from typing import Any

from asgiref.sync import AsyncToSync, SyncToAsync, sync_to_async
from django.db import connections


def give_back() -> None:
    """Close this thread's connections, unless a transaction is open around the response, as in a test."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


async def agive_back() -> None:
    """As ``give_back``, for the thread of this request's synchronous part, which is let go."""
    context, executors = _context(), _executors()
    own_thread = context is not None and getattr(AsyncToSync.executors, "current", None) is None
    if own_thread and executors is not None and context not in executors:
        return  # nothing of this request was synchronous, so nothing has a connection
    await sync_to_async(give_back)()
    if own_thread and executors is not None and getattr(context, "_executor", None) is None:
        executor = executors.pop(context, None)  # what comes next makes another
        if executor is not None:
            executor.shutdown(wait=False)


def _context() -> Any:
    """What asgiref tells the requests' threads apart by."""
    current = getattr(SyncToAsync, "thread_sensitive_context", None)
    return None if current is None else current.get(None)


def _executors() -> MutableMapping[Any, Executor] | None:
    """The threads of requests, by their contexts."""
    return getattr(SyncToAsync, "context_to_thread_executor", None)
