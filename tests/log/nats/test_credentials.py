"""Who has an NKey or a JWT comes in, who has another does not, and nobody is told a secret."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import ConfigError, LogDenied, MissingExtra
from tests.log.contents import data_of, some
from tests.log.nats.conftest import Logs
from tests.log.nats.credentials import Identity, Operator
from tests.support.nats import NatsServer, need_nats

pytestmark = need_nats


@pytest.fixture(scope="module")
def user() -> Identity:
    return Identity.user()


@pytest.fixture(scope="module")
def operator() -> Operator:
    return Operator()


@pytest.fixture(scope="module", params=["nkey", "creds"])
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(
    way: str, user: Identity, operator: Operator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NatsServer]:
    more = (
        operator.config if way == "creds" else f"authorization {{ users: [ {{ nkey: {user.public} }} ] }}\n"
    )
    with NatsServer(tmp_path_factory.mktemp("nats"), more) as server:
        yield server


@pytest.fixture
def own(way: str, user: Identity, operator: Operator, tmp_path: Path) -> Path:
    """A file with what the server trusts in."""
    file = tmp_path / "own"
    file.write_text(operator.credentials() if way == "creds" else user.seed.decode())
    return file


@pytest.fixture
def foreign(way: str, tmp_path: Path) -> Path:
    """A file with what it does not."""
    file = tmp_path / "foreign"
    file.write_text(Operator().credentials() if way == "creds" else Identity.user().seed.decode())
    return file


def test_credentials_open_a_log(url: str, logs: Logs, way: str, own: Path) -> None:
    log = logs(f"{url}?{way}={own}")
    log.open()
    log.append(some("1", "2"))
    assert data_of(log) == ["1", "2"]


def test_those_of_others_do_not(url: str, logs: Logs, way: str, foreign: Path) -> None:
    with pytest.raises(LogDenied, match="check user and password, token or creds") as denied:
        logs(f"{url}?{way}={foreign}").open()
    assert_no_secret(str(denied.value), foreign)


def test_nor_does_who_shows_none(logs: Logs) -> None:
    with pytest.raises(LogDenied):
        logs().open()


def test_a_file_that_is_not_there_is_told(url: str, logs: Logs, way: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{way}=.*none names cannot be read"):
        logs(f"{url}?{way}={tmp_path}/none").open()


def test_a_file_with_something_else_is_told(url: str, logs: Logs, way: str, tmp_path: Path) -> None:
    file = tmp_path / "else"
    file.write_text("SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA\n")
    with pytest.raises(ConfigError, match="no seed") as error:
        logs(f"{url}?{way}={file}").open()
    assert_no_secret(str(error.value), file)


def test_the_package_that_they_need_is_named(
    url: str, logs: Logs, way: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(MissingExtra, match="pip install nkeys"):
        logs(f"{url}?{way}={own}").open()


def assert_no_secret(told: str, file: Path) -> None:
    assert not [line for line in file.read_text().split() if len(line) > 20 and line in told]
