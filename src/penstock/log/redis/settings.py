"""What an operator must know of the server: said once, when the log is opened."""

from __future__ import annotations

import logging

from redis.exceptions import ResponseError

from penstock.log.redis.line import Line

logger = logging.getLogger("penstock.log")


def warn_of_settings(line: Line, url: str) -> None:
    """Say which settings of a server endanger a log. What may not be asked is passed over."""
    info = _info(line)
    if info.get("role") == "slave":
        logger.warning(
            "%s is a replica (role: slave): it can be followed, but nothing can be published; name the "
            "primary in the URL, or its sentinels",
            url,
        )
    policy = info.get("maxmemory_policy", "")
    if policy.startswith("allkeys") and info.get("maxmemory", "0") != "0":
        logger.warning(
            "the server of %s throws any keys away when its memory is full (maxmemory-policy %s), a log's "
            "too: all that is in it is lost then. Set maxmemory-policy noeviction, or volatile-lru",
            url, policy,
        )  # fmt: skip
    if info.get("aof_enabled") == "0" and _config(line, "save") == "":
        logger.warning(
            'the server of %s writes nothing to its disk (appendonly no, save ""): the log is lost when it '
            "ends. Set appendonly yes",
            url,
        )


def _info(line: Line) -> dict[str, str]:
    try:
        (text,) = line.ask(("INFO",))
    except ResponseError:
        return {}
    pairs = (row.partition(":") for row in text.decode(errors="replace").splitlines())
    return {name: value.strip() for name, colon, value in pairs if colon}


def _config(line: Line, name: str) -> str | None:
    """A setting; None if it may not be asked for, as with most hosted servers."""
    try:
        (answer,) = line.ask(("CONFIG", "GET", name))
    except ResponseError:
        return None
    return str(answer[1].decode()) if len(answer) == 2 else None
