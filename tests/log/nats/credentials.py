"""What NATS users show of themselves: NKeys, and JWTs that an operator's account has signed.

As https://docs.nats.io/reference/reference-protocols/nkeys and /running-a-nats-service/configuration/
securing_nats/auth_intro/jwt describe them.
"""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

import nkeys  # type: ignore[import-untyped]


class Identity:
    """A key pair.

    Attributes:
        public: as others are told.
        seed: the secret, as it rests in a file.
    """

    def __init__(self, kind: int) -> None:
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), kind))
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public = self._pair.public_key.decode()

    @classmethod
    def user(cls) -> Identity:
        return cls(nkeys.PREFIX_BYTE_USER)

    def sign(self, subject: str, name: str, nats: dict[str, Any]) -> str:
        """A JWT that says something of a subject."""
        claims = {
            "jti": os.urandom(8).hex(),
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject,
            "name": name,
            "nats": {"version": 2, **nats},
        }
        parts = [_encoded({"typ": "JWT", "alg": "ed25519-nkey"}), _encoded(claims)]
        signature = self._pair.sign(".".join(parts).encode())
        return ".".join([*parts, _text(signature)])


class Operator:
    """Who trusts one account, whose users have credentials."""

    def __init__(self) -> None:
        self._key = Identity(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = Identity(nkeys.PREFIX_BYTE_ACCOUNT)

    @property
    def config(self) -> str:
        """What a server is told of it."""
        operator = self._key.sign(self._key.public, "operator", {"type": "operator"})
        accounts = [
            f"{account.public}: {self._vouch_for(account)}" for account in (self._account, self._system)
        ]
        return (
            f"operator: {operator}\nresolver: MEMORY\nsystem_account: {self._system.public}\n"
            f"resolver_preload: {{ {', '.join(accounts)} }}\n"
        )

    def _vouch_for(self, account: Identity) -> str:
        limits: dict[str, Any] = dict.fromkeys(
            ["subs", "data", "payload", "imports", "exports", "conn", "leaf"], -1
        )
        if account is self._account:
            limits |= dict.fromkeys(["mem_storage", "disk_storage", "streams", "consumer"], -1)
        return self._key.sign(account.public, "account", {"type": "account", "limits": limits})

    def credentials(self) -> str:
        """Those of a new user, as they rest in a ``.creds`` file."""
        user = Identity.user()
        limits = {"type": "user", "subs": -1, "data": -1, "payload": -1}
        token = self._account.sign(user.public, "user", limits)
        return (
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )


def _encoded(claims: dict[str, Any]) -> str:
    return _text(json.dumps(claims, separators=(",", ":")).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
