"""What docs/testing.md says is run here, as somebody would who has copied it; and so are the fixtures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.testing.pytest_plugin import is_asgi
from tests.support.processes import ROOT, environment
from tests.testing.apps import Answers

PAGE = ROOT / "docs" / "testing.md"
COROUTINES = '''
import asyncio, inspect

def pytest_pyfunc_call(pyfuncitem):
    """Stands in for pytest-asyncio."""
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        asyncio.run(pyfuncitem.obj())
        return True
'''


def run_pytest(folder: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *options]
    env = environment({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})  # loading others takes seconds
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    """Each section is a file."""
    wanted: set[str] = set()
    for section in PAGE.read_text().split("\n## ")[1:]:
        title = re.sub(r"\W+", "_", section.partition("\n")[0]).lower()
        blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        configuration = [block for block in blocks if block.startswith("# conftest.py\n")]
        if configuration:
            (tmp_path / "conftest.py").write_text(configuration[0] + COROUTINES)
        if code := "\n\n".join(block for block in blocks if block not in configuration):
            (tmp_path / f"test_{title}.py").write_text(code)
            wanted |= set(re.findall(r"^(?:async )?def (test_\w+)", code, re.MULTILINE))
    assert len(wanted) > 8
    only_one_check = "not test_my_log or a_new_log_is_empty"  # they all are run elsewhere
    status, told = run_pytest(tmp_path, "-rp", "-k", only_one_check)
    assert status == 0, told
    passed = set(re.findall(r"^PASSED .*::(test_\w+)", told, re.MULTILINE))
    assert passed == wanted, told


def test_a_fixture_drops_what_a_test_left_open_and_tells_what_failed_then(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
import threading

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    yield b": hello\\n\\n"
    environ["werkzeug.socket"].recv(1)
    if environ["PATH_INFO"] == "/fails":
        raise LookupError("of the app")

def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("WSGIClient")]

def test_1(penstock_client):
    client = penstock_client(app, timeout=60)
    client.stream("/1"), client.stream("/2")
    assert len(threads()) == 2

def test_2():
    assert threads() == []

def test_3(penstock_client):
    penstock_client(app).stream("/fails")

def test_4(penstock_bus, penstock_url, tmp_path):
    assert penstock_url == f"sqlite:///{tmp_path}/penstock.db"
    penstock_bus.publish("chat", "hello")
    assert (tmp_path / "penstock.db").exists()
"""
    )
    status, told = run_pytest(tmp_path, "-p", "penstock.testing.pytest_plugin")
    assert status == 1
    assert "4 passed, 1 error" in told
    assert "ERROR test_it.py::test_3 - LookupError: of the app" in told


def test_penstock_testing_needs_no_pytest() -> None:
    look = (
        "import sys, threading; sys.modules['pytest'] = None\n"
        "import penstock.testing\n"
        "foreign = {name.partition('.')[0] for name in sys.modules} - {*sys.stdlib_module_names, 'pytest'}\n"
        "print({name for name in foreign if not name.startswith('_')}, threading.active_count())"
    )
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n{look}",
    ]
    looked = subprocess.run(command, capture_output=True, text=True, check=True)
    assert looked.stdout == "{'penstock'} 1\n"


async def _three(scope: object, receive: object, send: object) -> None: ...
async def _any_coroutine(*args: object) -> None: ...
def _two(environ: object, start_response: object) -> None: ...
def _any(*args: object) -> None: ...
def _lazily(scope: object, receive: object, send: object) -> object: ...


class _Callable:
    async def __call__(self, *args: object) -> None: ...


@pytest.mark.parametrize("app", [_three, _lazily, _any_coroutine, _Callable(), Answers([]).asgi])
def test_an_asgi_app_is_known(app: object) -> None:
    assert callable(app)
    assert is_asgi(app)


@pytest.mark.parametrize("app", [_two, _any, dict, Answers([]).wsgi])
def test_a_wsgi_app_is_known(app: object) -> None:
    assert callable(app)
    assert not is_asgi(app)
