"""``manage.py penstock``: the command ``penstock``, on the log that the settings name.

It is that command, with the same output, signals and exit codes, less the argument that names the log.
"""

from __future__ import annotations

import copy
import re
import sys
from argparse import REMAINDER
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from penstock.cli import group, main
from penstock.django.conf import Settings
from penstock.errors import ConfigError, PenstockError
from penstock.options import Options

_EXAMPLE = re.compile(r"\bpenstock (\w+) (?:sqlite:///penstock\.db|URL)")


class Command(BaseCommand):
    """See ``manage.py penstock --help``."""

    help = "Publish to the log, follow it, and look after it."
    requires_system_checks = []  # a log is looked at when something is wrong  # noqa: RUF012

    def add_arguments(self, parser: CommandParser) -> None:
        """Leave all arguments to the command proper."""
        parser.add_argument("arguments", nargs=REMAINDER)

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as a program: with its output, signals and exit codes."""
        parser = CommandParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--settings")  # Django has heeded these two already
        parser.add_argument("--pythonpath")
        _, arguments = parser.parse_known_args(argv[2:])
        main(arguments, name=f"{_program(argv[0])} {argv[1]}", adapt=on_this_log)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run as ``call_command("penstock", "stats")`` does."""
        try:
            on_this_log(group()).main(options["arguments"], prog_name="penstock", standalone_mode=False)
        except PenstockError as error:
            raise CommandError(str(error)) from error

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Show the help of the command proper."""
        main(["--help"], name=f"{_program(prog_name)} {subcommand}", adapt=on_this_log)


def on_this_log(commands: Any) -> Any:
    """The commands of ``penstock.cli``, whose argument ``url`` is that of this project's log.

    Args:
        commands: the group of them.
    """
    adapted = copy.copy(commands)
    adapted.commands = {name: _on_this_log(command) for name, command in commands.commands.items()}
    adapted.epilog = _EXAMPLE.sub(r"manage.py penstock \1", commands.epilog).replace(
        "  penstock ", "  manage.py penstock "
    )
    adapted.help = commands.help.partition("\n\n")[0]
    return adapted


def _on_this_log(command: Any) -> Any:
    adapted = copy.copy(command)
    adapted.params = [_as_set(param) for param in command.params if param.name != "url"]
    adapted.callback = lambda **given: command.callback(url=_url(), **given)
    adapted.epilog = _EXAMPLE.sub(r"manage.py penstock \1", command.epilog)
    return adapted


def _as_set(param: Any) -> Any:
    """A parameter, whose default is what the settings say where they say it."""
    if param.name != "max_event_bytes":
        return param
    adapted = copy.copy(param)
    adapted.default = str(Options.of(Settings.read().options).max_event_bytes)
    return adapted


def _url() -> str:
    url = Settings.read().url
    if not isinstance(url, str):
        raise ConfigError("the log of these settings is made by a function, and has no URL for a command")
    return url


def _program(path: str) -> str:
    return "manage.py" if path.endswith("manage.py") else sys.argv[0].rpartition("/")[2]
