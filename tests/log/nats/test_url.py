"""The URLs of logs in NATS."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from penstock.errors import ConfigError
from penstock.log import open_log
from penstock.log.nats import NatsLog
from penstock.log.nats.url import Server, Settings, settings_of


def settings(url: str) -> Settings:
    return settings_of(urlsplit(url))


def test_a_host_is_enough() -> None:
    assert settings("nats://queue.example") == Settings((Server("queue.example", 4222),))


def test_all_may_be_said() -> None:
    found = settings(
        "nats://me:p%40ss@one,two:5222,[::1]:6222/app-log?replicas=3&prefix=app.log&timeout=2.5"
        "&connect_timeout=1&tls=yes&tls_ca=/ca.pem&tls_cert=/me.pem&tls_key=/me.key&domain=hub&inbox=_MINE"
    )
    assert found == Settings(
        (Server("one", 4222), Server("two", 5222), Server("::1", 6222)),
        user="me", password="p@ss", stream="app-log", prefix="app.log", replicas=3, domain="hub",
        timeout_s=2.5, connect_timeout_s=1.0, tls=True, tls_ca="/ca.pem", tls_cert="/me.pem",
        tls_key="/me.key", inbox="_MINE",
    )  # fmt: skip


def test_a_token_stands_alone() -> None:
    found = settings("nats://s3cret@one/x")
    assert (found.token, found.user, found.password) == ("s3cret", None, None)


def test_files_of_credentials_are_named() -> None:
    assert settings("nats://one?creds=/etc/app.creds").creds == "/etc/app.creds"
    assert settings("nats://one?nkey=/etc/app.nk").nkey == "/etc/app.nk"


def test_subjects_begin_with_the_name_of_the_stream_unless_said_otherwise() -> None:
    assert settings("nats://one").prefix == "penstock"
    assert settings("nats://one/app").prefix == "app"
    assert settings("nats://one/app?prefix=other").prefix == "other"


@pytest.mark.parametrize("secret", ["nats://me:s3cret@one:4222/x", "nats://s3cret@one:4222/x"])
def test_the_log_names_itself_without_secrets(secret: str) -> None:
    log = open_log(secret)
    assert isinstance(log, NatsLog)
    assert log.url == "nats://one:4222/x"
    assert "s3cret" not in repr(settings(secret))
    log.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://", "cannot be read"),
        ("nats:///x", "cannot be read"),
        ("nats://one,,two", "cannot be read"),
        ("nats://me:s3cret@one:0", "cannot be read"),
        ("nats://me:s3cret@one:99999", "cannot be read"),
        ("nats://me:s3cret@one two", "cannot be read"),
        ("nats://me:s3cret@one:4222:4223", "cannot be read"),
        ("nats://me:s3cret@one/a.b", "name of a stream"),
        ("nats://me:s3cret@one/a/b", "name of a stream"),
        ("nats://me:s3cret@one/%2A", "name of a stream"),
        ("nats://me:s3cret@one?replicas=0", "from 1 to 5"),
        ("nats://me:s3cret@one?replicas=6", "from 1 to 5"),
        ("nats://me:s3cret@one?replicas=1.5", "a whole number"),
        ("nats://me:s3cret@one?timeout=0", "from 0.1 to 600"),
        ("nats://me:s3cret@one?timeout=nan", "from 0.1 to 600"),
        ("nats://me:s3cret@one?timeout=long", "from 0.1 to 600"),
        ("nats://me:s3cret@one?prefix=a..b", "words parted by dots"),
        ("nats://me:s3cret@one?prefix=%3E", "words parted by dots"),
        ("nats://me:s3cret@one?tls=perhaps", "yes or no"),
        ("nats://me:s3cret@one?tls_key=/k", "tls_cert=, which is missing"),
        ("nats://me:s3cret@one?tls_ca=", "is empty"),
        ("nats://me:s3cret@one?timeout=1&timeout=2", "there twice"),
        ("nats://me:s3cret@one?replica=3", "'replica': no option"),
        ("nats://me:s3cret@one?creds=/c", "one of them"),
        ("nats://s3cret@one?nkey=/n", "one of them"),
        ("nats://me:s3cret/more@one/x", "%-encoded"),
        ("nats://me:s3cret?more@one/x", "%-encoded"),
        ("nats://me:s3cret#more@one/x", "%-encoded"),
        ("nats://me:s3cret/x", "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_without_showing_secrets(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        open_log(url)
    assert "s3cret" not in str(caught.value)


def test_a_log_that_is_not_opened_holds_nothing() -> None:
    for _ in range(10_000):
        open_log("nats://one/x")
