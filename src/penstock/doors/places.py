"""How many streams there may be: of a process, and of one client address.

A stranger can open as many connections as he likes, and each holds something: a thread, a task, a
descriptor. Past a limit he gets a refusal or a bounded answer instead, which hold nothing, and the
operator is told which limit it was and how to move it.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from functools import lru_cache

from penstock import threads
from penstock.engine.engine import Engine
from penstock.engine.notices import warn

try:
    import resource
except ImportError:  # pragma: no cover  # not a Unix
    resource = None  # type: ignore[assignment]

logger = logging.getLogger("penstock.streams")

STREAMS_PER_PUBLIC_ADDRESS = 1_000  # more than an office behind one router has tabs
IPV6_PREFIX = 64  # of a client's network: within it, it may take any address it likes (RFC 8981)
KEPT_DESCRIPTORS = 64  # for the log, the listeners and other requests; 5 % if that is more
UNLIMITED_DESCRIPTORS = 1_000_000

_DESCRIPTORS_FULL = (
    "%d descriptors are in use, and the last few are kept for other requests: no more streams are opened. "
    "Raise the limit of open files (ulimit -n, LimitNOFILE=)"
)
_CLIENT_FULL = (
    "%s has %d streams open, and gets no more (max_streams_per_client). If that is a proxy, let it pass on "
    "the addresses of its clients"
)


class Full(Exception):
    """There is no place.

    Args:
        one_client: whether it is this client that has too many, not all of them together.
    """

    def __init__(self, one_client: bool) -> None:
        super().__init__("no place for a stream")
        self.one_client = one_client


class Places:
    """Counts the streams of one process that leave through one kind of door.

    Args:
        limit: the most at once; None for what the process's descriptors allow.
        per_client: the most for one address, or network: see ``network_of``. None for
            ``STREAMS_PER_PUBLIC_ADDRESS`` if it is a public one, and no limit for private ones, behind
            which there may be a proxy.
        refuses: whether whoever finds no place is refused; else it gets a bounded answer.
        told: the log line when all are taken; ``%d`` in it becomes the limit.
        about: the log's URL.
    """

    def __init__(
        self, limit: int | None, per_client: int | None, *, refuses: bool, told: str, about: str
    ) -> None:
        self.descriptors = usable_descriptors()
        self.limit = self.descriptors if limit is None else limit
        self._per_client = per_client
        self.refuses = refuses
        self._told = told
        self._about = about
        self._taken = 0
        self._clients: dict[str, int] = {}
        self._mutex = threads.Lock()

    def take(self, client: str | None, fd: int | None = None) -> Callable[[], None]:
        """Take a place.

        Args:
            client: the client's address; None if it is unknown.
            fd: the descriptor of its connection. A new one has the lowest free number, so it tells how
                full the process's table is.

        Returns:
            What gives the place back.

        Raises:
            Full: if there is none; the operator was told.
        """
        address = client and network_of(client)
        with self._mutex:
            why = self._take(address, fd)
        if why is not None:
            message, values = why  # logged without the lock: see penstock.threads
            warn(logger, message, *values, about=self._about)
            raise Full(one_client=message is _CLIENT_FULL)
        return Place(self, address)

    def _take(self, client: str | None, fd: int | None) -> tuple[str, tuple[object, ...]] | None:
        """Take a place, or say why there is none."""
        if fd is not None and fd >= self.descriptors:
            return _DESCRIPTORS_FULL, (fd,)
        if self._taken >= self.limit:
            return self._told, (self.limit,)
        if client is not None:
            most = self._most_for(client)
            has = self._clients.get(client, 0)
            if most is not None and has >= most:
                return _CLIENT_FULL, (client, has)
            self._clients[client] = has + 1
        self._taken += 1
        return None

    def _most_for(self, client: str) -> int | None:
        if self._per_client is not None:
            return self._per_client
        return STREAMS_PER_PUBLIC_ADDRESS if is_public(client.partition("/")[0]) else None

    def give(self, client: str | None) -> None:
        """Give a place of this client's back; for ``Place``."""
        with self._mutex:
            self._taken -= 1
            if client is not None:
                self._clients[client] -= 1
                if not self._clients[client]:
                    del self._clients[client]


class Place:
    """One that was taken; to call it gives it back, once. Each stream has one, so it is small."""

    __slots__ = ("_client", "_places")

    def __init__(self, places: Places, client: str | None) -> None:
        self._places: Places | None = places
        self._client = client

    def __call__(self) -> None:
        """Give it back, or do nothing."""
        places, self._places = self._places, None
        if places is not None:
            places.give(self._client)


def without_threads(engine: Engine, server: str, stopping: Callable[[], bool] | None = None) -> Places:
    """The places of streams that hold a descriptor and no thread; the engine is started.

    Args:
        engine: the engine.
        server: whose connections they are, for the log line.
        stopping: tells whether the server is to end, if it does not say so in another way.
    """
    options = engine.options
    places = Places(
        options.max_streams,
        options.max_streams_per_client,
        refuses=options.overflow == "refuse",
        told=f"all %d places for streams are taken; more are answered with '{options.overflow}'. Raise "
        "max_streams (PENSTOCK_MAX_STREAMS) or the limit of open files, or run more workers",
        about=engine.log.url,
    )
    engine.start(f"{server}, at most {places.limit} at once")
    if stopping is not None:
        engine.drain_when(stopping)
    return places


@lru_cache(4096)
def is_public(client: str) -> bool:
    """Whether an address is one of the open internet."""
    found = _parse(client)
    return found is not None and found.is_global


@lru_cache(4096)
def network_of(client: str) -> str:
    """Whose streams are counted together with this address's: all of its network, if it is a public IPv6."""
    found = _parse(client)
    if found is None or found.version == 4:
        return client if found is None else str(found)
    if not found.is_global:
        return client
    return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))


def _parse(client: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address; of an IPv4 one that a socket for both shows as ``::ffff:a.b.c.d``, what it is."""
    try:
        found = ipaddress.ip_address(client)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def usable_descriptors() -> int:
    """How many descriptors streams may use, of those that this process may have."""
    soft = UNLIMITED_DESCRIPTORS
    if resource is not None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if soft == resource.RLIM_INFINITY:
            soft = UNLIMITED_DESCRIPTORS
    return max(0, soft - max(KEPT_DESCRIPTORS, soft // 20))
