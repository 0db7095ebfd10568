"""What the setting may hold, and what is told of one that cannot work or that does harm."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import CheckMessage, Error, run_checks
from django.core.management import call_command
from django.db import connection
from django.http import HttpRequest
from django.test import override_settings

from penstock import django as penstock
from penstock.django import get_bus
from penstock.django.checks import check_deployment
from penstock.errors import ConfigError
from penstock.log.memory import MemoryLog


def told(**given: Any) -> list[CheckMessage]:
    """What the system checks say of Penstock under these settings."""
    with override_settings(**given):
        return [each for each in run_checks() if (each.id or "").startswith("penstock.")]


def test_nothing_is_opened_or_started_before_the_first_use(tmp_path: Path) -> None:
    assert get_bus().options.keep_alive == 15.0
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("penstock")]


def test_every_option_is_a_key_in_capitals(url: str) -> None:
    given = {
        "URL": url,
        "KEEP_ALIVE": 20,
        "MAX_STREAMS": 7,
        "MAX_AGE": None,
        "CORS_ORIGINS": ["https://a.example"],
    }
    assert told(PENSTOCK=given) == []
    with override_settings(PENSTOCK=given):
        options = get_bus().options
    assert (options.keep_alive, options.max_streams, options.max_age) == (20, 7, None)
    assert options.cors_origins == ("https://a.example",)


def test_without_a_url_the_log_lies_in_base_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "a project, 100 %"
    base.mkdir()
    with override_settings(BASE_DIR=base):
        assert told(PENSTOCK={}) == []
        with override_settings():
            del settings.PENSTOCK
            penstock.publish("chat", "hi")
    assert (base / "penstock.db").exists()
    monkeypatch.chdir(tmp_path)
    with override_settings(PENSTOCK={}, BASE_DIR=None):
        penstock.publish("chat", "hi")
    assert (tmp_path / "penstock.db").exists()


def test_a_change_of_the_settings_makes_another_bus_and_closes_the_one_before(tmp_path: Path) -> None:
    before = get_bus()
    penstock.publish("chat", "here")
    assert get_bus() is before
    with override_settings(PENSTOCK={"URL": f"sqlite:///{tmp_path}/other.db", "KEEP_ALIVE": 3}):
        assert get_bus() is not before
        assert get_bus().options.keep_alive == 3
        penstock.publish("chat", "there")
        assert "closed" in repr(before)
    assert [record.data for record in get_bus().engine.log.read(0, 10)] == ["here"]


def test_the_log_may_be_made_by_a_function() -> None:
    with override_settings(PENSTOCK={"URL": MemoryLog}):
        penstock.publish("chat", "hi")
        assert isinstance(get_bus().engine.log, MemoryLog)
        assert told(PENSTOCK={"URL": MemoryLog}) == []


WRONG: list[tuple[Any, str, str, str | None]] = [
    (
        "sqlite:///penstock.db",
        "E001",
        "PENSTOCK is a dict of settings, not 'sqlite:///penstock.db'",
        "PENSTOCK =",
    ),
    ({"KEEPALIVE": 3}, "E002", "there is no key 'KEEPALIVE' in PENSTOCK", "did you mean 'KEEP_ALIVE'?"),
    ({"keep_alive": 3}, "E002", "there is no key 'keep_alive' in PENSTOCK", "in capitals: 'KEEP_ALIVE'"),
    ({"XYZ": 3}, "E002", "there is no key 'XYZ' in PENSTOCK", "there are URL, AUTHORIZE, KEEP_ALIVE"),
    ({7: 3}, "E002", "there is no key '7' in PENSTOCK", "there are URL"),
    (
        {"KEEP_ALIVE": "20"},
        "E003",
        "PENSTOCK['KEEP_ALIVE']: keep_alive is a number from 0.1 to 3600, not '20'",
        None,
    ),
    ({"OVERFLOW": "wait"}, "E003", "PENSTOCK['OVERFLOW']: overflow is 'poll' or 'refuse'", None),
    ({"URL": "postgres"}, "E004", "PENSTOCK['URL']: no log is known for a URL without a scheme", None),
    ({"URL": None}, "E004", "PENSTOCK['URL']: a log's URL is text", None),
    (
        {"AUTHORIZE": 7},
        "E005",
        "PENSTOCK['AUTHORIZE'] is a function or the dotted path to one, not 7",
        "called with",
    ),
]


@pytest.mark.parametrize(("given", "number", "message", "hint"), WRONG, ids=lambda value: str(value)[:30])
def test_what_cannot_work_is_told_by_the_checks_and_by_the_first_use(
    given: Any, number: str, message: str, hint: str | None
) -> None:
    (found,) = (each for each in told(PENSTOCK=given) if isinstance(each, Error))
    assert found.id == f"penstock.{number}"
    assert found.msg.startswith(message)
    assert (found.hint is None) if hint is None else (found.hint is not None and hint in found.hint)
    with override_settings(PENSTOCK=given):
        with pytest.raises(ConfigError) as raised:
            penstock.publish("chat", "hi")
        assert str(raised.value).startswith(message)


def test_the_checks_tell_all_that_is_wrong_at_once() -> None:
    given = {"KEEPALIVE": 3, "RETRY": -1, "URL": "nonsense:", "AUTHORIZE": 7}
    ids = [each.id for each in told(PENSTOCK=given)]
    assert ids == ["penstock.E002", "penstock.E003", "penstock.E004", "penstock.E005"]


@pytest.mark.parametrize("path", ["nowhere.at_all", "penstock.nothing", "nodots", "penstock.__version__"])
def test_what_authorizes_is_looked_for_by_the_checks(url: str, path: str) -> None:
    (found,) = told(PENSTOCK={"URL": url, "AUTHORIZE": path})
    assert found.id == "penstock.E005"
    assert "AUTHORIZE" in found.msg


def test_what_authorizes_may_be_named_by_a_path(url: str) -> None:
    assert told(PENSTOCK={"URL": url, "AUTHORIZE": "tests.django.urls.even"}) == []


def test_settings_of_their_own_are_not_read_and_that_is_told(url: str) -> None:
    (found,) = told(PENSTOCK={"URL": url}, PENSTOCK_KEEP_ALIVE=3, PENSTOCK_FOLDER="/somewhere")
    assert found.id == "penstock.W001"
    assert found.msg == "the setting PENSTOCK_KEEP_ALIVE is not read"
    assert found.hint == 'the settings of Penstock are one dict: PENSTOCK = {"KEEP_ALIVE": …}'


def test_a_log_in_memory_is_warned_of_unless_it_is_for_development() -> None:
    (found,) = told(PENSTOCK={"URL": "memory:"})
    assert found.id == "penstock.W002"
    assert "does not reach the streams of another" in found.msg
    assert told(PENSTOCK={"URL": "memory:"}, DEBUG=True) == []


@pytest.mark.parametrize("name", ["MEDIA_ROOT", "STATIC_ROOT"])
def test_a_log_that_could_be_downloaded_is_warned_of(tmp_path: Path, name: str) -> None:
    given = {"URL": f"sqlite:///{tmp_path}/files/penstock.db"}
    (found,) = told(PENSTOCK=given, **{name: str(tmp_path / "files")})
    assert found.id == "penstock.W003"
    assert f"lies in {name}" in found.msg
    assert told(PENSTOCK=given, **{name: str(tmp_path / "file")}) == []


def test_a_relative_file_is_warned_of_where_there_is_a_better_one() -> None:
    (found,) = told(PENSTOCK={"URL": "sqlite:///penstock.db"})
    assert found.id == "penstock.W004"
    assert found.hint is not None
    assert f"sqlite:///{settings.BASE_DIR}/penstock.db" in found.hint
    assert told(PENSTOCK={"URL": "sqlite:///penstock.db"}, BASE_DIR=None) == []


def test_the_database_s_own_file_is_no_log() -> None:
    (found,) = told(PENSTOCK={"URL": f"sqlite:///{connection.settings_dict['NAME']}"})
    assert found.id == "penstock.E006"
    assert "is the file of the database 'default'" in found.msg


def test_the_app_s_migration_is_that_of_its_model() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@contextlib.contextmanager
def table_names() -> Iterator[list[str]]:
    with connection.cursor() as cursor:
        yield connection.introspection.table_names(cursor)


def test_the_app_makes_no_table() -> None:
    with table_names() as names:
        assert "django_session" in names
        assert not [name for name in names if "penstock" in name]


class Compresses:
    """A middleware that asks nobody whether a response is encoded already."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        response = self._get_response(request)
        response.streaming_content = [gzip.compress(b"".join(response.streaming_content))]
        return response


class CompressesOthers(Compresses):
    """One that does ask."""

    def __call__(self, request: HttpRequest) -> Any:
        response = self._get_response(request)
        return response if response.has_header("Content-Encoding") else super().__call__(request)


def test_a_middleware_that_compresses_streams_is_told_and_no_other() -> None:
    own = "django.middleware.gzip.GZipMiddleware"
    here = f"{__name__}.{Compresses.__name__}"
    (found,) = told(MIDDLEWARE=[own, here, f"{__name__}.{CompressesOthers.__name__}"])
    assert found.id == "penstock.W005"
    assert found.msg.startswith(f"{here} changes streams")


def test_before_a_deployment_the_threads_of_streams_are_told() -> None:
    def told_of(**given: Any) -> list[str | None]:
        with override_settings(**given):
            return [each.id for each in check_deployment()]

    assert told_of(WSGI_APPLICATION="shop.wsgi.application", PENSTOCK={}) == ["penstock.I001"]
    assert told_of(WSGI_APPLICATION="shop.wsgi.application", PENSTOCK={"MAX_STREAMS": 40}) == []
    assert told_of(WSGI_APPLICATION=None, PENSTOCK={}) == []
    with override_settings(WSGI_APPLICATION="shop.wsgi.application"):
        assert "penstock.I001" in {each.id for each in run_checks(include_deployment_checks=True)}
        assert "penstock.I001" not in {each.id for each in run_checks()}
