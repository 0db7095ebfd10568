"""What is built and installed: the wheel, alone, without any extra."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.processes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=250)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    no_index = "wheel tests need the build backend; the cure: a package index that pip can reach"
    try:
        built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT, cwd=folder)
    except subprocess.TimeoutExpired:
        pytest.skip(no_index)
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip(no_index)
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "--no-index", wheel, cwd=folder)
    assert installed.returncode == 0, installed.stderr
    return python


def test_the_wheel_has_types_and_sql(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"penstock/py.typed", "penstock/log/sqlite/schema.sql"} <= names
    assert {"penstock/log/redis/append.lua", "penstock/log/postgres/append.sql"} <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_without_extras_events_are_stored_and_followed(bare: Path, tmp_path: Path) -> None:
    script = (
        "from penstock import Penstock\n"
        "with Penstock('sqlite:///a.db') as bus:\n"
        "    records = bus.subscribe('a')\n"
        "    bus.publish('a', 'stored')\n"
        "    print(next(records).data)\n"
    )
    done = run(bare, "-c", script, cwd=tmp_path)
    assert done.stdout == "stored\n", done.stderr


def test_a_missing_extra_names_the_pip_install(bare: Path, tmp_path: Path) -> None:
    flask = run(bare, "-c", "import penstock.flask", cwd=tmp_path)
    assert "MissingExtra: Flask is not installed: pip install 'penstock[flask]'" in flask.stderr
    command = run(bare.with_name("penstock"), "stats", "sqlite:///a.db", cwd=tmp_path)
    assert command.returncode == 2
    assert "pip install 'penstock[cli]'" in command.stderr
    assert "Traceback" not in command.stderr
