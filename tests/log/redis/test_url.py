"""What a URL may say, and that nothing shows a password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from penstock import Penstock
from penstock.errors import ConfigError
from penstock.log import open_log
from tests.support.redis import need_redis

if TYPE_CHECKING:
    from penstock.log.redis.target import Target

pytestmark = need_redis

SECRET = "s3cr%40t"  # s3cr@t


def target(url: str) -> Target:
    from penstock.log.redis.url import target_of  # only where the driver is

    return target_of(urlsplit(url))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "redis://localhost:6379"),
        ("redis://host", "redis://host:6379"),
        ("redis://host/", "redis://host:6379"),
        ("redis://host:7000/3", "redis://host:7000/3"),
        ("redis://host?db=3", "redis://host:6379/3"),
        ("redis://[::1]:7000", "redis://[::1]:7000"),
        ("redis://host?prefix=shop", "redis://host:6379?prefix=shop"),
        ("rediss://host/1?ssl_ca_certs=/ca.pem&prefix=shop", "rediss://host:6379/1?prefix=shop"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix:///run/redis.sock?db=2&prefix=shop", "unix:///run/redis.sock?db=2&prefix=shop"),
        ("redis+sentinel://a,b:1,c/main", "redis+sentinel://a:26379,b:1,c:26379/main"),
        ("rediss+sentinel://a/main/2", "rediss+sentinel://a:26379/main/2"),
        ("redis+cluster://a,b:7000", "redis+cluster://a:6379,b:7000"),
        ("rediss+cluster://a/0", "rediss+cluster://a:6379"),
    ],
)
def test_a_log_is_named_by_its_url(url: str, shown: str) -> None:
    assert open_log(url).url == shown
    again = open_log(shown)
    assert again.url == shown


def test_a_url_says_how_to_reach_it() -> None:
    found = target(
        f"redis://us%3Aer:{SECRET}@host:7000/3?prefix=shop&timeout=2.5&connect_timeout=1&replicas=2"
    )
    assert found.addresses == (("host", 7000),)
    assert (found.db, found.prefix, found.replicas) == (3, "shop", 2)
    assert (found.timeout_s, found.connect_timeout_s) == (2.5, 1.0)
    assert found.credentials == ("us:er", "s3cr@t")
    assert found.tls is None


def test_a_password_needs_no_user() -> None:
    assert target(f"redis://:{SECRET}@host").credentials == (None, "s3cr@t")
    assert target(f"unix://:{SECRET}@/run/redis.sock").credentials == (None, "s3cr@t")
    assert target(f"redis+sentinel://:{SECRET}@a,b/main").credentials == (None, "s3cr@t")


def test_sentinels_have_a_password_of_their_own() -> None:
    found = target(f"redis+sentinel://:{SECRET}@a/main?sentinel_username=u&sentinel_password=p%40w")
    assert found.credentials == (None, "s3cr@t")
    assert found.sentinel_credentials == ("u", "p@w")
    assert target(f"redis+sentinel://:{SECRET}@a/main").sentinel_credentials == (None, None)


def tls(options: str) -> Mapping[str, str | bool]:
    found = target(f"rediss://host?{options}").tls
    assert found is not None
    return found


def test_tls_asks_for_a_certificate_unless_told_otherwise() -> None:
    assert tls("") == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert tls("ssl_cert_reqs=none") == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    assert tls("ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k&ssl_check_hostname=false") == {
        "ssl_ca_certs": "/ca",
        "ssl_certfile": "/c",
        "ssl_keyfile": "/k",
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": False,
    }


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://host/name", "whole number"),
        ("redis://host/1/2", "one database"),
        ("redis://host/1?db=2", "one database"),
        ("redis://host:port", "cannot be read"),
        ("redis://host:70000", "cannot be read"),
        ("redis://a,b", "one server"),
        ("redis://a,,b", "cannot be read"),
        ("redis://host#1", "%23"),
        ("redis://host?colour=red", "no option colour"),
        ("redis://host?prefix=a&prefix=b", "twice"),
        ("redis://host?prefix=", "prefix="),
        ("redis://host?prefix={a}", "prefix="),
        ("redis://host?prefix=a b", "prefix="),
        ("redis://host?timeout=0.5", "timeout="),
        ("redis://host?timeout=nan", "timeout="),
        ("redis://host?timeout=soon", "timeout="),
        ("redis://host?connect_timeout=-1", "connect_timeout="),
        ("redis://host?replicas=-1", "replicas"),
        ("redis://host?ssl_ca_certs=/ca", "need rediss:"),
        ("redis://host?sentinel_password=x", "no option sentinel_password"),
        ("rediss://host?ssl_cert_reqs=maybe", "ssl_cert_reqs="),
        ("rediss://host?ssl_check_hostname=maybe", "ssl_check_hostname="),
        ("unix://host/run/redis.sock", "three slashes"),
        ("unix://", "three slashes"),
        ("redis+sentinel://a,b", "what the sentinels call the primary"),
        ("redis+cluster://a/1", "database 0"),
        ("redis+nonsense://a", "no log is known"),
    ],
)
def test_what_cannot_be_is_refused_at_once(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Penstock(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:PW@host:port",
        "redis://user:PW@host/name",
        "redis://user:PW@host?timeout=x",
        "redis://host?password=PW",
        "redis://:PW@host#PW",
        "redis://user:P/PW@host",
        "redis://user:P?PW@host",
        "redis://us@er:PW@host:x",
        "redis+sentinel://:PW@a",
        "unix://:PW@host/x",
    ],
)
def test_no_refusal_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Penstock(url.replace("PW", "hunter2"))
    assert "hunter2" not in str(refused.value)


def test_nothing_shows_the_password_of_a_url() -> None:
    url = f"rediss+sentinel://user:{SECRET}@a/main?sentinel_password=p4ss&ssl_password=k3y"
    log, bus = open_log(url), Penstock(url)
    shown = [log.url, repr(log), repr(bus), repr(target(url)), str(target(url))]
    bus.close()
    for secret in ("s3cr", "p4ss", "k3y"):
        assert not [text for text in shown if secret in text]


def test_all_keys_of_a_log_lie_in_one_slot_of_a_cluster() -> None:
    from redis.crc import key_slot

    found = target("redis+cluster://a?prefix=shop")
    assert found.key("log") == b"{shop}:log"
    assert len({key_slot(found.key(name)) for name in ("log", "events", "forbidden:x.1")}) == 1


def test_nothing_is_connected_before_it_is_used() -> None:
    log = open_log("redis://127.0.0.1:1")
    log.close()
