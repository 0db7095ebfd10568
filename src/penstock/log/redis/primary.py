"""Finds the server that may be written to: the one that a URL names, or the one that others name."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError

from penstock import threads
from penstock.log.redis.errors import code_of
from penstock.log.redis.line import Line, connect
from penstock.log.redis.target import Address, Credentials, Target

_ASK_TIMEOUT_S = 2.0  # a sentinel or node that has not answered by then: another may


def connector(target: Target) -> Callable[[], Line]:
    """What connects to the server that may be written to."""
    if target.way == "sentinel":
        return _Sentinels(target).connect
    if target.way == "cluster":
        return _Cluster(target).connect
    return lambda: connect(target, target.addresses[0], target.credentials, db=target.db)


class _Others(ABC):
    """Servers that know where the one is. Any thread may use it.

    Args:
        target: the log.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._mutex = threads.Lock()
        self._known = list(target.addresses)  # first the one that answered last

    def connect(self) -> Line:
        """Connect to the one that they name.

        Raises:
            RedisError: none of them named one that can be reached and is the one.
        """
        deadline = time.monotonic() + self.target.connect_timeout_s
        failed: list[str] = []
        denied: RedisError | None = None
        with self._mutex:
            known = list(self._known)
        for address in known:
            try:
                found = self._ask(address)
                if found is not None:
                    line = connect(self.target, found, self.target.credentials, db=self.target.db)
                    if self._is_the_one(line):
                        return line
                    line.close()
                failed.append(f"{address} named none" if found is None else f"{found} is no primary")
            except RedisError as error:
                failed.append(f"{address}: {error}")
                if code_of(error) in ("NOAUTH", "NOPERM", "WRONGPASS"):
                    denied = error
            if time.monotonic() > deadline:
                break
        raise denied or ConnectionError("; ".join(failed))

    @abstractmethod
    def _ask(self, address: Address) -> Address | None:
        """Which it is, as one of them knows."""

    def _is_the_one(self, line: Line) -> bool:
        """Whether the one that was named is it, as far as it can tell."""
        return True

    def _answer(self, address: Address, login: Credentials, *command: str) -> Any:
        line = connect(
            self.target,
            address,
            login,
            connect_timeout_s=min(self.target.connect_timeout_s, _ASK_TIMEOUT_S),
            timeout_s=min(self.target.timeout_s, _ASK_TIMEOUT_S),
        )
        with contextlib.closing(line):
            return line.ask(command)[0]

    def _prefer(self, *addresses: Address) -> None:
        with self._mutex:
            self._known = list(dict.fromkeys([*addresses, *self.target.addresses]))


class _Sentinels(_Others):
    """Sentinels: https://redis.io/docs/latest/develop/reference/sentinel-clients/."""

    def _ask(self, address: Address) -> Address | None:
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.target.service)
        answer = self._answer(address, self.target.sentinel_credentials, *command)
        if not answer:
            return None
        self._prefer(address)
        return Address(answer[0].decode(), int(answer[1]))

    def _is_the_one(self, line: Line) -> bool:
        try:
            return bool(line.ask(("ROLE",))[0][0] == b"master")
        except RedisError as error:
            if code_of(error) == "NOPERM":  # then a write will tell
                return True
            line.close()
            raise


class _Cluster(_Others):
    """A log lies in one slot, so one node of the cluster has it: the primary of the slot."""

    def _ask(self, address: Address) -> Address | None:
        slot = key_slot(self.target.key("log"))
        found: Address | None = None
        nodes: list[Address] = []
        for begin, end, *of_slots in self._answer(address, self.target.credentials, "CLUSTER", "SLOTS"):
            here = [_node(node, address) for node in of_slots]  # the primary is the first
            nodes += here
            if begin <= slot <= end:
                found = here[0]
        self._prefer(address, *nodes)
        return found


def _node(node: list[Any], asked: Address) -> Address:
    """A node that does not know its own name is the one that was asked."""
    host = (node[0] or b"").decode()
    return Address(asked.host if host in ("", "?") else host, int(node[1]))
