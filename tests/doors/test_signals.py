"""Streams are told of the signal that ends the process, and whoever handled it before is told too."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.processes import ROOT, environment
from tests.support.wait import DEADLINE_S

STREAMS = 3


@contextmanager
def program(how: str) -> Iterator[subprocess.Popen[str]]:
    """``tests.doors.signalled``, once it is ready."""
    command = [sys.executable, "-m", "tests.doors.signalled", how]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            while (line := process.stdout.readline()) != "ready\n":
                assert line == "first handler\n", "it ended, or something else happened"
            yield process
        finally:
            process.kill()


def told(how: str, number: signal.Signals = signal.SIGTERM) -> tuple[list[str], int]:
    """What happens in the program when it gets a signal, and its exit code."""
    with program(how) as process:
        process.send_signal(number)
        output, _ = process.communicate(timeout=DEADLINE_S)
        return output.split("\n")[:-1], process.returncode


def test_streams_are_ended_before_the_handler_that_was_there_is_called() -> None:
    assert told("handler") == (["farewell"] * STREAMS + ["first handler", "stopped"], 0)


def test_a_signal_for_a_child_process_is_none_for_the_streams_of_its_parent() -> None:
    assert told("forked") == (["farewell"] * STREAMS + ["first handler", "stopped"], 0)


def test_a_handler_of_the_loop_is_called_too() -> None:
    lines, code = told("loop")
    assert sorted(lines) == sorted(["loop's handler", *["farewell"] * STREAMS, "stopped"])
    assert code == 0


def test_without_a_handler_the_signal_ends_the_process_after_its_streams() -> None:
    assert told("default") == (["farewell"] * STREAMS, -signal.SIGTERM)


@pytest.mark.usefixtures("foreground")
def test_ctrl_c_ends_streams_first_too() -> None:
    lines, code = told("handler", signal.SIGINT)
    assert lines == ["farewell"] * STREAMS
    assert code == -signal.SIGINT


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    with program("ignored") as process:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate("go on\n", timeout=DEADLINE_S)
        lines = output.split("\n")[:-1]
        assert lines[0] == "stopped"
        assert "first handler" not in lines


def test_a_client_that_takes_nothing_keeps_the_signal_back_for_a_second_only() -> None:
    lines, code = told("stuck")
    assert lines[-2:] == ["first handler", "stopped"]
    assert lines.count("farewell") == STREAMS - 1
    assert code == 0


def test_a_second_signal_is_passed_on_at_once() -> None:
    with program("stuck") as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "farewell\n"  # of another stream: it was handled
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert output.count("first handler") == 1
        assert process.returncode == 0


def test_whoever_put_his_handler_over_ours_is_called_once_and_so_is_the_first() -> None:
    lines, code = told("wrapped")
    assert lines == ["farewell"] * STREAMS + ["second handler", "first handler", "stopped"]
    assert code == 0


def test_whoever_put_his_handler_in_the_place_of_ours_is_called_after_the_streams() -> None:
    assert told("replaced") == (["farewell"] * STREAMS + ["second handler", "stopped"], 0)


@pytest.mark.parametrize("how", ["no stream", "another thread"])
def test_a_process_without_a_stream_of_its_main_thread_keeps_its_handlers(how: str) -> None:
    assert told(how) == (["first handler", "stopped"], 0)
