"""``manage.py penstock``: the command, on the log of the project."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from penstock import Penstock
from penstock.core.position import Position
from penstock.django import publish
from tests.support.processes import environment

MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project")
execute_from_command_line(sys.argv)
"""
SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
INSTALLED_APPS = ["penstock.django"]
SECRET_KEY = "test"
PENSTOCK = {"MAX_EVENT_BYTES": 1000}
"""


class Project:
    """A project in a folder, with its ``manage.py``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "manage.py").write_text(MANAGE)
        (folder / "project.py").write_text(SETTINGS)
        (folder / "other.py").write_text(SETTINGS.replace("1000", "None") + "PENSTOCK = {'URL': 'memory:'}\n")
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.folder / "manage.py"), "penstock", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, from another folder than the project's."""
        return subprocess.run(
            self.command(*arguments), cwd=self.folder / "elsewhere", env=environment(), capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_it_publishes_and_shows_what_there_is(project: Project) -> None:
    done = project.run("publish", "chat", "hi", "--event", "message")
    assert done.returncode == 0, done.stderr
    position = Position.parse(done.stdout.strip())
    assert (project.folder / "penstock.db").exists(), "wherever it is called from"
    shown = json.loads(project.run("tail", "--no-follow", "--json").stdout)
    assert (shown["channel"], shown["data"], shown["position"]) == ("chat", "hi", str(position))
    stats = json.loads(project.run("stats", "--json").stdout)
    assert (stats["head"], stats["log"]) == (1, f"sqlite:///{project.folder}/penstock.db")


def test_it_follows_the_log_until_it_is_stopped(project: Project) -> None:
    with Penstock(f"sqlite:///{project.folder}/penstock.db") as bus:
        bus.publish("chat", "before")
        with subprocess.Popen(
            project.command("tail", "chat", "--last", "1"),
            cwd=project.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline().endswith("\tchat\tmessage\tbefore\n")
            bus.publish("chat", "now")
            assert process.stdout.readline().endswith("\tchat\tmessage\tnow\n")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == -signal.SIGTERM


def test_errors_are_one_line_and_an_exit_code(project: Project) -> None:
    for arguments, code, told in (
        (["stats"], 3, "there is no log"),
        (["publish", "bad channel", "hi"], 2, "white space"),
        (["publish", "chat", "x" * 1001], 2, "over the limit of 1000"),
        (["publish", "chat"], 2, "Missing argument 'DATA'"),
        (["--settings=other", "stats"], 2, "is in the memory of one process"),
        (["stats", "--settings", "other"], 2, "is in the memory of one process"),
    ):
        done = project.run(*arguments)
        assert done.returncode == code, done
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    assert "try 'manage.py penstock publish --help'" in project.run("publish", "chat").stderr


@pytest.mark.parametrize("arguments", [[], ["publish"], ["tail"], ["stats"], ["trim"], ["renew"]])
def test_the_help_speaks_of_manage_py_and_names_no_log(project: Project, arguments: list[str]) -> None:
    done = project.run(*arguments, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: manage.py penstock {' '.join(arguments)}".strip() in done.stdout
    assert "manage.py penstock " in done.stdout.partition("Examples:")[2]
    assert "sqlite:" not in done.stdout
    assert " URL " not in done.stdout.partition("Exit codes:")[0]


def test_help_of_manage_py_is_that_help(project: Project) -> None:
    command = [sys.executable, "manage.py", "help", "penstock"]
    done = subprocess.run(
        command, cwd=project.folder, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == project.run("--help").stdout


def test_trim_keeps_what_it_is_told_to(project: Project) -> None:
    for number in range(3):
        project.run("publish", "chat", str(number))
    assert project.run("trim", "--max-events", "1").stdout == "removed 2, left 1\n"


def test_it_can_be_called_by_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    publish("chat", "hi")
    call_command("penstock", "tail", "--no-follow")
    assert capsys.readouterr().out.endswith("\tchat\tmessage\thi\n")
    with pytest.raises(CommandError, match="white space"):
        call_command("penstock", "publish", "bad channel", "hi")
    with override_settings(PENSTOCK={"URL": "memory:"}), pytest.raises(CommandError, match="memory"):
        call_command("penstock", "stats")


def test_what_a_command_publishes_reaches_a_process_that_follows(project: Project) -> None:
    with Penstock(f"sqlite:///{project.folder}/penstock.db") as bus, bus.subscribe("chat") as records:
        project.run("publish", "chat", "from a command")
        assert next(records).data == "from a command"


def test_a_plain_process_with_the_project_s_settings_publishes(project: Project) -> None:
    script = (
        "import django; django.setup()\n"
        "import threading\n"
        "from penstock.django import publish, get_bus\n"
        "thread = threading.Thread(target=publish, args=('jobs', {'done': 17}))\n"
        "thread.start(); thread.join()\n"
        "print(get_bus().engine.log.bounds().head)\n"
    )
    env = environment({"DJANGO_SETTINGS_MODULE": "project"})
    env["PYTHONPATH"] = f"{project.folder}:{env['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project.folder, env=env, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_without_click_the_cure_is_told(project: Project) -> None:
    (project.folder / "click.py").write_text("raise ImportError('no click')")
    done = project.run("stats")
    assert done.returncode == 2
    assert "pip install 'penstock[cli]'" in done.stderr
