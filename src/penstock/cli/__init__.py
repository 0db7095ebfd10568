"""The command ``penstock``.

``commands`` says what it can do, ``terminal`` how it meets the world; this module runs it: exit codes that
scripts can act on, one line on stderr for what may be expected, a traceback only for what may not, and a
word on what to install when click is missing.

The rule of this layer: a face. It uses ``penstock`` and the contract of logs, and nothing of the engine.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from penstock.cli.terminal import (
    NobodyReads,
    Stopped,
    complain,
    end_by_signal,
    give_up_output,
    stop_on_signals,
)
from penstock.errors import (
    AppendUnsure,
    ConfigError,
    InvalidEvent,
    LogError,
    MalformedPosition,
    MissingExtra,
    PenstockError,
)

DONE, UNEXPECTED, USAGE, NOT_DONE, UNSURE = 0, 1, 2, 3, 4

_CODES: list[tuple[type[PenstockError], int]] = [  # the first that fits
    (ConfigError, USAGE),
    (InvalidEvent, USAGE),
    (MalformedPosition, USAGE),
    (AppendUnsure, UNSURE),
    (LogError, NOT_DONE),
]


def main(
    arguments: Sequence[str] | None = None,
    *,
    name: str = "penstock",
    adapt: Callable[[Any], Any] | None = None,
) -> NoReturn:
    """Run the command, and exit.

    Args:
        arguments: those of the process, if not given.
        name: how the command was called.
        adapt: makes another group of commands of ours.
    """
    stopped: Stopped | None = None
    code = DONE
    stop_on_signals()
    try:
        code = _run(arguments, name, adapt)
    except NobodyReads:
        pass
    except Stopped as why:
        stopped = why
    except (PenstockError, OSError) as error:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), UNEXPECTED)
        complain(str(error))
    give_up_output()
    if stopped is not None:
        code = end_by_signal(stopped)
    sys.exit(code)


def group() -> Any:
    """The group of commands, as click has it.

    Raises:
        MissingExtra: if click is not installed.
    """
    try:
        import click  # noqa: F401
    except ImportError as error:
        raise MissingExtra("the command needs click: pip install 'penstock[cli]'") from error
    from penstock.cli.commands import penstock

    return penstock


def _run(arguments: Sequence[str] | None, name: str, adapt: Callable[[Any], Any] | None) -> int:
    found = group() if adapt is None else adapt(group())
    import click

    logging.basicConfig(format="penstock: %(message)s", level=logging.WARNING)
    try:
        answer = found.main(arguments, prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        complain(error.format_message())
        complain(f"try '{error.ctx.command_path if error.ctx is not None else name} --help'")
        return USAGE
    return answer if isinstance(answer, int) else DONE
