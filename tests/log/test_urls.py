"""What makes a log of a URL, before any log is concerned."""

from __future__ import annotations

import subprocess
import sys

import pytest

from penstock.errors import ConfigError
from penstock.log import open_log
from tests.support.processes import environment

SCHEMES = ["redis", "rediss", "redis+sentinel", "redis+cluster", "postgresql", "postgres", "nats"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("host", ["ho\u2100st", "[::1"])
def test_a_url_that_cannot_be_read_is_refused_without_its_password(scheme: str, host: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        open_log(f"{scheme}://app:geheim@{host}/0")
    assert "geheim" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def opened_without(module: str, url: str) -> str:
    """What a process says that opens a log and cannot import a module."""
    script = f"import sys; sys.modules[{module!r}] = None; import penstock.log as log; log.open_log({url!r})"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "url", "install"),
    [
        ("redis", "redis://h", "'penstock[redis]'"),
        ("psycopg", "postgresql://h/d", "'penstock[postgres]' 'psycopg[binary]'"),
        ("nats", "nats://h", "'penstock[nats]'"),
    ],
)
def test_a_missing_driver_names_the_pip_install(module: str, url: str, install: str) -> None:
    told = opened_without(module, url)
    assert told.startswith("penstock.errors.MissingExtra: ")
    assert told.endswith(f": pip install {install}")


def test_a_driver_that_lacks_its_library_names_the_pip_install() -> None:
    """psycopg by itself needs libpq, and tells so when it is imported."""
    env = environment({"PSYCOPG_IMPL": "c"})  # which is not installed
    script = "import penstock.log as log; log.open_log('postgresql://h/d')"
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert "MissingExtra" in done.stderr.splitlines()[-1]
    assert "psycopg[binary]" in done.stderr.splitlines()[-1]
