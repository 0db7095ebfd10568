"""Connects the driver to one server, and ends that again: whatever it leaves, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from penstock.errors import ConfigError, MissingExtra
from penstock.log.nats.errors import is_denial
from penstock.log.nats.sockets import Loop
from penstock.log.nats.url import Server, Settings

_SEED = re.compile(rb"^\s*(S[A-Z2-7]+)\s*$", re.MULTILINE)


async def dial(server: Server, settings: Settings, failed: Callable[[Exception], Awaitable[None]]) -> Client:
    """A connection to a server, that does not mend itself.

    Args:
        server: where it listens.
        settings: of the log.
        failed: is told of errors later on.

    Raises:
        Exception: of many kinds; nothing is left of it.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.must_be_secured = settings.tls
    client = Client()
    refused: list[Exception] = []

    async def note(error: Exception) -> None:
        refused.append(error)
        await failed(error)

    _check_credentials(settings)
    options: dict[str, Any] = {
        "user": settings.user,
        "password": settings.password,
        "token": settings.token,
        "user_credentials": settings.creds,
        "nkeys_seed": settings.nkey,
        "tls": _tls_context(settings),
    }
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            await client.connect(
                f"nats://{server}",
                error_cb=note,
                name="penstock",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=settings.connect_timeout_s,  # type: ignore[arg-type]
                inbox_prefix=settings.inbox,
                **{name: value for name, value in options.items() if value is not None},
            )
            if not client.is_connected:
                raise ConnectionResetError("it hung up")
    except BaseException as error:
        told = [*filter(is_denial, refused), *refused]  # before what the end of it brings about
        await end(client, loop.transport)
        if told and not isinstance(error, asyncio.CancelledError):
            raise told[0] from error  # the server's own words, where there are some
        raise
    return client


async def end(client: Client, transport: asyncio.Transport | None) -> None:
    """End a connection at once: what is on its way to the server is not waited for."""
    for _ in range(3):
        await asyncio.sleep(0)  # the driver hands on what it has: it could not be closed with it
    tasks = tasks_of(client)
    if transport is not None:
        transport.abort()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1):
            await client.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def tasks_of(client: Client) -> list[asyncio.Task[None]]:
    """What the driver lets run for a connection; it does not always tell of their end, nor bring it about."""
    tasks = [client._reading_task, client._flusher_task, client._ping_interval_task]
    tasks += [subscription._wait_for_msgs_task for subscription in client._subs.values()]
    return [task for task in tasks if task is not None]


def _check_credentials(settings: Settings) -> None:
    """Tell what is wrong with the files of credentials, for which the driver would blame the server."""
    for option, file in ("creds", settings.creds), ("nkey", settings.nkey):
        if file is None:
            continue
        try:
            import nkeys  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "nkeys is not installed, which creds= and nkey= need: pip install nkeys"
            ) from error
        try:
            found = _SEED.search(Path(file).read_bytes())
        except OSError as error:
            raise ConfigError(
                f"the file that {option}={file} names cannot be read: {error.strerror}; nothing was opened"
            ) from error
        try:
            nkeys.from_seed(bytearray(found[1] if found else b""))
        except Exception:  # of many kinds, whose words may have the seed
            raise ConfigError(
                f"the file that {option}={file} names has no seed of an NKey; nothing was opened"
            ) from None


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    if not (settings.tls or settings.tls_ca or settings.tls_cert):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_cert is not None:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # ssl.SSLError too
        raise ConfigError(
            f"the certificates that {settings.url} names cannot be read: {error}; nothing was opened"
        ) from error
    return context
