"""What the URL of a log in PostgreSQL may say, and that nobody is shown its password."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from psycopg.conninfo import conninfo_to_dict

from penstock import Penstock
from penstock.errors import ConfigError, LogUnavailable, PenstockError
from penstock.log import open_log
from penstock.log.postgres import PostgresLog
from tests.support.ports import free_port
from tests.support.processes import ROOT, environment

SECRET = "s3cr%40t"


def log_of(url: str) -> PostgresLog:
    log = open_log(url)
    assert isinstance(log, PostgresLog)
    return log


def conninfo_of(url: str) -> dict[str, object]:
    return dict(conninfo_to_dict(log_of(url)._place.conninfo))


def refusal_of(url: str) -> str:
    with pytest.raises(ConfigError) as refused:
        open_log(url)
    return str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://", {}),
        ("postgresql:///app", {"dbname": "app"}),
        ("postgres://u@h/app", {"user": "u", "host": "h", "dbname": "app"}),
        ("postgresql://u:p%40@h:5433/a", {"user": "u", "password": "p@", "port": "5433", "host": "h"}),
        ("postgresql://h/a?sslmode=verify-full&prefix=x", {"sslmode": "verify-full", "dbname": "a"}),
        ("postgresql:///a?host=%2Frun%2Fpg&user=me+you", {"host": "/run/pg", "user": "me+you"}),
        ("postgresql://one,two:5433/a", {"host": "one,two", "port": ",5433"}),
        ("postgresql://one,two/a?target_session_attrs=any", {"target_session_attrs": "any"}),
        ("postgresql://[::1]:5433/a", {"host": "::1", "port": "5433"}),
        ("postgresql://h/a?application_name=shop", {"application_name": "shop"}),
        ("postgresql://h/a?connect_timeout=9", {"connect_timeout": "9"}),
        ("postgresql://h/a?options=-c%20search_path%3Dx", {"options": "-c search_path=x"}),
    ],
)
def test_what_is_libpqs_goes_to_libpq(url: str, expected: dict[str, object]) -> None:
    found = conninfo_of(url)
    assert {name: found[name] for name in expected} == expected
    assert found["client_encoding"] == "UTF8"


def test_what_is_not_said_is_set_to_what_serves_a_log() -> None:
    found = conninfo_of("postgresql://one,two/a")
    assert found["target_session_attrs"] == "read-write"
    assert found["connect_timeout"] == "5"
    assert "target_session_attrs" not in conninfo_of("postgresql://one/a")


def test_the_options_are_read() -> None:
    url = "postgresql://h/a?prefix=p&schema=S-1&create=init&timeout=2.5&doorbell=poll&listen=db&sync=off"
    place = log_of(url)._place
    assert (place.names.schema, place.names.prefix) == ("S-1", "p")
    assert (place.create, place.timeout_s, place.doorbell, place.sync) == ("init", 2.5, "poll", "off")
    plain = log_of("postgresql://h/a")._place
    assert (plain.names.schema, plain.names.prefix) == ("public", "penstock")
    assert (plain.create, plain.timeout_s, plain.doorbell, plain.sync) == ("use", 10, "listen", None)
    assert plain.listen is None


def test_the_place_to_listen_is_the_same_but_for_the_host() -> None:
    place = log_of("postgresql://u:p@pool:6432/a?sslmode=require&listen=db.example:5433")._place
    assert place.listen is not None
    found = conninfo_to_dict(place.listen)
    expected = {"host": "db.example", "port": "5433", "user": "u", "password": "p", "dbname": "a"}
    assert {name: found[name] for name in expected} == expected
    assert found["sslmode"] == "require"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://h/a?prefix=Über", "prefix="),
        ("postgresql://h/a?prefix=" + "x" * 31, "up to 30"),
        ("postgresql://h/a?schema=a.b", "schema="),
        ("postgresql://h/a?schema=", "schema="),
        ("postgresql://h/a?create=maybe", "use, init"),
        ("postgresql://h/a?doorbell=ring", "listen, poll"),
        ("postgresql://h/a?sync=full", "remote_write"),
        ("postgresql://h/a?timeout=soon", "seconds"),
        ("postgresql://h/a?timeout=0", "seconds"),
        ("postgresql://h/a?listen=db:port", "HOST:PORT"),
        ("postgresql://h/a?preffix=x", "did you mean 'prefix'"),
        ("postgresql://h/a?ssl_mode=x", "did you mean 'sslmode'"),
        ("postgresql://h/a#b", "%23"),
        ("postgresql://h/a?sslmode", "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_early(url: str, said: str) -> None:
    assert said in refusal_of(url)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}:@h:port/a",
        f"postgresql://u:{SECRET}@[h/a",
        f"postgresql://u:{SECRET}@h/a?sslmode=require=x",
        f"postgresql://u:{SECRET}@h/a?nothing=x",
        f"postgresql://u:{SECRET}%zz@h/a",
        f"postgresql://u:{SECRET}@h:99999x/a",
        f"postgresql://u@h/a?password={SECRET}%zz",
        f"postgresql://u@h/a?password={SECRET}&timeout=x",
        f"postgresql://u:{SECRET}#@h/a",
    ],
)
def test_a_refusal_does_not_show_the_password(url: str) -> None:
    said = refusal_of(url)
    assert "s3cr" not in said


@pytest.mark.parametrize("form", ["u:{}@127.0.0.1:{}/a", "u@127.0.0.1:{1}/a?password={0}&prefix=x"])
def test_nobody_is_shown_the_password(form: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = "postgresql://" + form.format(SECRET, free_port())
    with Penstock(url, publish_timeout=0) as bus:
        with pytest.raises(LogUnavailable) as away:
            bus.publish("check", "1")
        shown = [str(away.value), repr(away.value), repr(bus), log_of(url).url, caplog.text]
        cause: BaseException | None = away.value
        while cause is not None:
            shown.append(str(cause))
            cause = cause.__cause__
    assert "s3cr" not in "".join(shown)
    assert "nothing was stored" in shown[0]


def test_a_log_that_is_not_used_connects_to_nothing() -> None:
    log = log_of(f"postgresql://127.0.0.1:{free_port()}/a")
    assert repr(Penstock(f"postgresql://127.0.0.1:{free_port()}/a")).endswith("idle>")
    log.close()
    with pytest.raises(PenstockError, match="closed"):
        log.bounds()


def test_without_the_driver_the_cure_is_told() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from penstock import Penstock\n"
        "try: Penstock('postgresql://h/a')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "pip install 'penstock[postgres]'" in done.stdout
