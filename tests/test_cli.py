"""The command ``penstock``, run as a process against real files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import psutil
import pytest

from penstock import Event, Gap, Options, Penstock, Position, __version__
from penstock.cli.commands import penstock as command
from penstock.cli.logs import opened_log, stored
from penstock.cli.terminal import AGE, COUNT, SIZE, Unit
from penstock.core.channel import Subscription
from penstock.errors import ConfigError
from tests.support import processes
from tests.support.processes import ROOT
from tests.support.wait import DEADLINE_S, wait_for

pytestmark = pytest.mark.usefixtures("foreground")

URL = "sqlite:///app.db"
COMMAND = [sys.executable, "-m", "penstock"]


def environment() -> dict[str, str]:
    """As a person's: what is printed waits in a buffer, unless the command sees to it."""
    env = processes.environment()
    del env["PYTHONUNBUFFERED"]
    return env


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which the test and its commands are in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bus(folder: Path) -> Iterator[Penstock]:
    with Penstock(URL) as bus:
        yield bus


def run(
    *arguments: str, stdin: bytes = b"", program: list[str] = COMMAND
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*program, *arguments], input=stdin, capture_output=True, env=environment(), timeout=60
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def output(*arguments: str, stdin: bytes = b"") -> str:
    """What a command prints that is done, without a word on stderr."""
    done = run(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def with_settings(settings: str) -> list[str]:
    """The command, with constants of the package changed."""
    modules = "penstock.cli, penstock.engine.engine, penstock.engine.trimmer, penstock.log.sqlite"
    return [sys.executable, "-c", f"import {modules}\n{settings}\npenstock.cli.main()"]


class Tail:
    """A running ``penstock tail``, whose stdout and stderr go to files: a line there was flushed."""

    def __init__(self, folder: Path, *arguments: str, program: list[str] = COMMAND) -> None:
        self.out, self.err = folder / "tail.out", folder / "tail.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*program, "tail", *arguments], stdout=out, stderr=err, env=environment()
            )

    def lines(self, number: int) -> list[str]:
        """The output, once it has so many lines."""
        wait_for(
            lambda: self.out.read_text().count("\n") >= number,
            what=lambda: f"{number} lines: {self.out.read_text()!r} {self.err.read_text()!r}",
        )
        return self.out.read_text().splitlines()

    def wait_follows(self) -> None:
        """Wait until it has hung up its doorbell."""
        bells = Path("app.db-bells")
        wait_for(
            lambda: (
                bells.is_dir()
                and any(bell.name.startswith(f"{self.process.pid}-") for bell in bells.iterdir())
            ),
            what=lambda: f"tail follows: {self.err.read_text()!r}",
        )

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


# publish


def test_publish_prints_the_position_of_what_it_stored(bus: Penstock) -> None:
    bus.publish("chat", "first")
    position = output(
        "publish", URL, "chat", '{"text": "hi"}', "--event", "greeting", "--retry", "50", "--key", "k1"
    ).strip()
    (record,) = bus_read(bus)[1:]
    assert str(record.position) == position
    assert (record.channel, record.data, record.event, record.retry, record.key) == (
        "chat", '{"text": "hi"}', "greeting", 50, "k1",
    )  # fmt: skip


def bus_read(bus: Penstock) -> list[Any]:
    """All that is stored."""
    bus.engine.log.open()
    return bus.engine.log.read(0, 10_000)


def test_the_same_key_again_is_stored_once_and_prints_the_first_position(bus: Penstock) -> None:
    bus.publish("other", "x")
    first = output("publish", URL, "jobs", "done", "--key", "job-17")
    output("publish", URL, "jobs", "done")
    assert output("publish", URL, "jobs", "done", "--key", "job-17") == first
    assert len(bus_read(bus)) == 3


@pytest.mark.parametrize(
    ("stdin", "data"),
    [
        (b"hello\n", "hello"),
        (b"hello\r\n", "hello"),
        (b"two\nlines\n\n", "two\nlines\n"),
        ("grüße".encode(), "grüße"),
        (b"\n", ""),
        (b"", ""),
        (b"x" * (256 * 1024 - 4) + b"\n", "x" * (256 * 1024 - 4)),
    ],
)
def test_data_from_stdin_is_stored_less_one_newline(bus: Penstock, stdin: bytes, data: str) -> None:
    bus.publish("other", "")
    output("publish", URL, "chat", "-", stdin=stdin)
    assert bus_read(bus)[1].data == data


def test_stdin_without_an_end_is_refused(bus: Penstock) -> None:
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        done = subprocess.run(
            [*COMMAND, "publish", URL, "chat", "-"], stdin=endless.stdout, capture_output=True,
            env=environment(), timeout=60,
        )  # fmt: skip
        endless.kill()
    assert done.returncode == 2
    assert b"over 262144 bytes" in done.stderr


def test_publish_says_on_stderr_that_it_began_a_log(folder: Path) -> None:
    done = run("publish", URL, "chat", "hello")
    assert re.fullmatch(r"[a-z0-9]{8}:1\n", done.stdout)
    assert done.stderr == f"penstock: there was no log, so one was begun: sqlite:///{folder}/app.db\n"
    assert output("publish", URL, "chat", "again").endswith(":2\n")


def test_a_larger_event_is_stored_where_the_app_allows_it(bus: Penstock) -> None:
    bus.publish("chat", "")
    output("publish", URL, "chat", "-", "--max-event-bytes", "1MiB", stdin=b"x" * 300_000)
    assert len(bus_read(bus)[1].data) == 300_000


@pytest.mark.parametrize("name", ["a%23b.db", "50%25.db", "who%3f.db"])
def test_a_file_name_with_signs_of_urls_is_one_file_for_all_commands(folder: Path, name: str) -> None:
    url = f"sqlite:///{name}"
    assert run("publish", url, "chat", "hello").returncode == 0
    assert "hello" in output("tail", url, "--no-follow")
    with Tail(folder, url, "--after", "earliest") as tail:
        assert "hello" in tail.lines(1)[0]


# tail


def test_tail_prints_time_channel_type_and_data(bus: Penstock) -> None:
    bus.publish("chat", "hello")
    bus.publish("room/7", "one\ntwo\r\nthree\rfour", event="note")
    bus.publish("room/7", "\x1b[2J\x07 \x9b \u2028\tend", event="beep\x1b")
    bus.end("room/7")
    times, rows = zip(
        *(line.split("\t", 1) for line in output("tail", URL, "--no-follow").split("\n")[:-1]), strict=True
    )
    assert rows == (
        "chat\tmessage\thello",
        "room/7\tnote\tone", "two", "three", "four",
        "room/7\tbeep\\u001b\t\\u001b[2J\\u0007 \\u009b \\u2028\tend",
        "room/7\tpenstock.end\t",
    )  # fmt: skip
    assert times[2:5] == ("", "", "")
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", times[row]) for row in (0, 1, 5, 6))


def test_tail_json_prints_every_field_in_one_line(bus: Penstock) -> None:
    data = 'grüße "quoted"\n\x1b[2J \x7f \x85 \u2028'
    bus.publish("room/7", data, event="note", retry=5, key="k")
    bus.publish("chat", "x")
    bus.end("chat")
    out = output("tail", URL, "--no-follow", "--json")
    assert "grüße" in out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", out)
    lines = [json.loads(line) for line in out.split("\n")[:-1]]
    records = bus_read(bus)
    assert lines[0] == {
        "position": str(records[0].position), "seq": 1, "time": records[0].time, "channel": "room/7",
        "event": "note", "data": data, "retry": 5, "key": "k", "end": False,
    }  # fmt: skip
    assert [line["event"] for line in lines] == ["note", None, None]
    assert [line["end"] for line in lines] == [False, False, True]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ([], "abcdefg"),
        (["chat"], "aceg"),
        (["room/*"], "bd"),
        (["room/**"], "bdf"),
        (["chat", "room/2"], "acdeg"),
        (["--last", "2"], "fg"),
        (["chat", "--last", "2"], "eg"),
        (["chat", "--last", "0"], ""),
        (["nobody", "--last", "3"], ""),
        (["--after", "earliest"], "abcdefg"),
        (["--after", "EPOCH:3"], "defg"),
        (["--after", "EPOCH:7"], ""),
        (["room/*", "--after", "EPOCH:2"], "d"),
    ],
)
def test_tail_begins_where_it_is_told(bus: Penstock, where: list[str], expected: str) -> None:
    channels = ["chat", "room/1", "chat", "room/2", "chat", "room/1/typing", "chat"]
    positions = bus.publish_many(
        [Event(channel, data) for channel, data in zip(channels, "abcdefg", strict=True)]
    )
    where = [word.replace("EPOCH", positions[0].epoch) for word in where]
    lines = output("tail", URL, "--no-follow", *where).splitlines()
    assert "".join(line[-1] for line in lines) == expected


def test_tail_without_follow_reads_on_past_one_step(bus: Penstock) -> None:
    bus.publish_many([Event("chat", str(number)) for number in range(1_700)])
    lines = output("tail", URL, "--no-follow").splitlines()
    assert [line.split("\t")[3] for line in lines] == [str(number) for number in range(1_700)]


def test_tail_follows_what_other_processes_publish_from_now_on(bus: Penstock, folder: Path) -> None:
    bus.publish("chat", "old")
    with Tail(folder, URL, "chat", "room/*") as tail:
        wait_for(lambda: bus.publish("room/0", "tick") and tail.out.read_text(), what="the first line")
        bus.publish("other", "not wanted")
        bus.publish("room/1", "one")
        output("publish", URL, "chat", "two")
        wait_for(lambda: tail.out.read_text().endswith("two\n"), what="the last line")
        rows = [line.split("\t")[1:] for line in tail.out.read_text().splitlines()]
        assert [row for row in rows if row[2] != "tick"] == [
            ["room/1", "message", "one"], ["chat", "message", "two"],
        ]  # fmt: skip
    assert tail.err.read_text() == ""


def test_tail_replays_and_then_follows(bus: Penstock, folder: Path) -> None:
    for data in "abc":
        bus.publish("chat", data)
    with Tail(folder, URL, "--last", "2", "--json") as tail:
        assert [json.loads(line)["data"] for line in tail.lines(2)] == ["b", "c"]
        bus.publish("chat", "d")
        assert [json.loads(line)["data"] for line in tail.lines(3)] == ["b", "c", "d"]


def test_tail_is_done_when_its_channels_have_ended(bus: Penstock, folder: Path) -> None:
    bus.publish("job/7", "working")
    with Tail(folder, URL, "job/7", "--after", "earliest") as tail:
        tail.lines(1)
        bus.end("job/7")
        assert tail.wait() == 0
        assert [line.split("\t")[2] for line in tail.lines(2)] == ["message", "penstock.end"]
    assert output("tail", URL, "job/7") == ""  # it had ended before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_ends_in_order_by_the_signal_that_stops_it(
    bus: Penstock, folder: Path, number: signal.Signals
) -> None:
    bus.publish("chat", "hello")
    with Tail(folder, URL, "--last", "1") as tail:
        tail.lines(1)
        tail.wait_follows()
        tail.process.send_signal(number)
        assert tail.wait() == -number
        assert tail.err.read_text() == ""
    assert not Path("app.db-bells").exists()  # it took its doorbell down


def test_ctrl_c_does_not_stop_a_job_in_the_background(bus: Penstock, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts it
    bus.publish("chat", "hello")
    with Tail(folder, URL, "--last", "1") as tail:
        tail.lines(1)
        tail.process.send_signal(signal.SIGINT)
        bus.publish("chat", "still there?")
        tail.lines(2)
        tail.process.send_signal(signal.SIGTERM)
        assert tail.wait() == -signal.SIGTERM


def test_tail_notices_in_silence_that_its_reader_has_gone(bus: Penstock) -> None:
    bus.publish("chat", "hello")
    command = [*COMMAND, "tail", URL, "--last", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        try:
            assert tail.stdout.readline().endswith(b"hello\n")
            tail.stdout.close()
            assert tail.wait(DEADLINE_S) == 0
            assert tail.stderr.read() == b""
        finally:
            tail.kill()


@pytest.mark.parametrize("options", [["--no-follow"], ["--after", "earliest"]])
def test_a_reader_that_has_enough_is_no_error(bus: Penstock, options: list[str]) -> None:
    bus.publish_many([Event("chat", "x" * 1_000) for _ in range(1_000)])
    command = [*COMMAND, "tail", URL, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as tail:
        assert tail.stdout is not None
        assert tail.stderr is not None
        try:
            tail.stdout.readline()
            tail.stdout.close()
            assert tail.wait(DEADLINE_S) == 0
            assert tail.stderr.read() == b""
        finally:
            tail.kill()


@pytest.mark.parametrize("options", [["--no-follow"], []])
@pytest.mark.parametrize(
    ("after", "reason", "resumes", "rest"),
    [
        ("EPOCH:1", "expired", "EPOCH:3", ["d", "e"]),
        ("elsewhere:4", "epoch", "EPOCH:3", ["d", "e"]),
        ("EPOCH:99", "ahead", "EPOCH:5", []),
    ],
)
def test_tail_tells_of_a_gap_and_goes_on(
    bus: Penstock, folder: Path, options: list[str], after: str, reason: str, resumes: str, rest: list[str]
) -> None:
    epoch = bus.publish_many([Event("chat", data) for data in "abcde"])[0].epoch
    assert output("trim", URL, "--max-events", "2") == "removed 3, left 2\n"
    after, resumes = after.replace("EPOCH", epoch), resumes.replace("EPOCH", epoch)
    with Tail(folder, URL, "--json", "--after", after, *options) as tail:
        gap, *events = [json.loads(line) for line in tail.lines(1 + len(rest))]
        assert gap == {"gap": {"reason": reason, "after": after, "resumes": resumes}}
        assert [event["data"] for event in events] == rest
        said = tail.err.read_text()
        assert re.fullmatch(rf"penstock: gap after {after}: .*; going on after {resumes}\n", said)
        if options:
            assert tail.wait() == 0


@pytest.mark.parametrize(
    ("meanwhile", "reason", "rest"),
    [
        (["trim", URL, "--max-events", "100"], "expired", range(1_100, 1_200)),
        (["trim", URL, "--max-age", "1s"], "expired", range(0)),
        (["renew", URL], "epoch", range(0)),
    ],
)
def test_what_goes_while_it_is_read_is_told_as_a_gap(
    bus: Penstock, meanwhile: list[str], reason: str, rest: range
) -> None:
    bus.publish_many([Event("chat", str(number)) for number in range(1_200)])
    with contextlib.closing(sqlite3.connect("app.db")) as file, file:
        file.execute("UPDATE record SET time = time - 3600")
    gaps: list[Gap] = []
    with opened_log(URL) as log:
        records = stored(log, Subscription(["**"]), None, None, gaps.append)
        read = [next(records)]
        output(*meanwhile)
        read += records
        assert [gap.reason for gap in gaps] == [reason]
        step = int(gaps[0].after.split(":")[1])
        assert [int(record.data) for record in read] == [*range(step), *rest]
        bounds = log.bounds()
        assert gaps[0].resumes == Position(bounds.epoch, bounds.first - 1)


def test_tail_leaves_what_is_kept_to_the_app(bus: Penstock, folder: Path) -> None:
    bus.publish("chat", "kept for years")
    with contextlib.closing(sqlite3.connect("app.db")) as file, file:
        file.execute("UPDATE record SET time = 1")
    program = with_settings("penstock.engine.trimmer.INTERVAL_S = 0; penstock.engine.engine.SWEEP_S = 0.005")
    with Tail(folder, URL, "--last", "1", program=program) as tail:
        for number in range(1, 31):  # it sweeps many times meanwhile
            tail.lines(number)
            bus.publish("chat", "news")
    assert bus_read(bus)[0].data == "kept for years"


# stats, trim, renew


def test_stats_tells_what_the_log_holds(bus: Penstock, folder: Path) -> None:
    for data in "abc":
        bus.publish("chat", data)
    output("trim", URL, "--max-events", "2")
    records = bus_read(bus)
    epoch = records[0].epoch
    size = sum(os.path.getsize(part) for part in ("app.db", "app.db-wal") if os.path.exists(part))
    assert json.loads(output("stats", URL, "--json")) == {
        "log": f"sqlite:///{folder}/app.db", "position": f"{epoch}:3", "epoch": epoch, "first": 2, "head": 3,
        "events": 2, "oldest": records[0].time, "newest": records[1].time, "bytes": size,
    }  # fmt: skip
    told = dict(line.split(maxsplit=1) for line in output("stats", URL).splitlines())
    assert told.keys() == {
        "log", "position", "epoch", "first", "head", "events", "oldest", "newest", "size",
    }  # fmt: skip
    assert (told["events"], told["first"], told["head"]) == ("2", "2", "3")
    assert told["oldest"].endswith("Z")
    assert told["size"].endswith("KiB")


def test_stats_of_a_log_from_which_all_was_trimmed(bus: Penstock) -> None:
    bus.publish("chat", "old")
    with contextlib.closing(sqlite3.connect("app.db")) as file, file:
        file.execute("UPDATE record SET time = 1")
    assert output("trim", URL) == "removed 1, left 0\n"
    told = json.loads(output("stats", URL, "--json"))
    assert (told["first"], told["head"], told["events"]) == (2, 1, 0)
    assert told["oldest"] is None
    assert told["newest"] is None
    assert re.search(r"^oldest +-$", output("stats", URL), re.MULTILINE)


def test_trim_removes_by_age_number_and_size(bus: Penstock) -> None:
    bus.publish_many([Event("chat", "x" * 1_000) for _ in range(500)])
    with contextlib.closing(sqlite3.connect("app.db")) as file, file:
        file.execute("UPDATE record SET time = time - 25 * 3600 WHERE seq <= 100")
    none = ["--max-age", "none", "--max-events", "none", "--max-bytes", "none"]
    assert output("trim", URL, *none) == "removed 0, left 500\n"
    assert output("trim", URL, "--max-age", "26h") == "removed 0, left 500\n"
    assert output("trim", URL) == "removed 100, left 400\n"  # 24 h, as an app
    assert output("trim", URL, "--max-events", "0.3k") == "removed 100, left 300\n"
    removed, left = map(int, re.findall(r"\d+", output("trim", URL, "--max-bytes", "128KiB")))
    assert removed + left == 300
    assert 50 < left < 130


def test_the_defaults_of_trim_and_publish_are_those_of_options() -> None:
    defaults = {
        option.name: option.default
        for name in ("trim", "publish")
        for option in command.commands[name].params
    }
    units = {"max_age": AGE, "max_events": COUNT, "max_bytes": SIZE, "max_event_bytes": SIZE}
    for name, unit in units.items():
        assert unit.read(str(defaults[name])) == getattr(Options(), name)


@pytest.mark.parametrize(
    ("unit", "text", "amount"),
    [
        (AGE, "90", 90), (AGE, "90s", 90), (AGE, "15m", 900), (AGE, "1.5h", 5400), (AGE, "7d", 604800),
        (AGE, "2 W", 1209600), (AGE, "none", None), (COUNT, "20k", 20_000), (COUNT, "1M", 1_000_000),
        (SIZE, "65536", 65536), (SIZE, "1GiB", 1024**3), (SIZE, "500mb", 500_000_000), (SIZE, "0.5 KiB", 512),
    ],
)  # fmt: skip
def test_amounts_are_read_with_their_units(unit: Unit, text: str, amount: int | None) -> None:
    assert unit.read(text) == amount


@pytest.mark.parametrize("text", ["", "h", "-5m", "5 minutes", "1h30m", "1e3", "٣h", "5\n"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an age: write 90s, 15m, 24h, 7d or none"):
        AGE.read(text if text != "5\n" else "5\nm")


def test_renew_begins_an_epoch_and_followers_are_told(bus: Penstock, folder: Path) -> None:
    old = bus.publish("chat", "before").epoch
    with Tail(folder, URL, "--last", "1", "--json") as tail:
        tail.lines(1)
        tail.wait_follows()
        told = re.fullmatch(r"old epoch (\w+)\nnew epoch (\w+)\n", output("renew", URL))
        assert told is not None
        assert told[1] == old
        assert told[2] != old
        gap, again = (json.loads(line) for line in tail.lines(3)[1:])
        assert gap == {"gap": {"reason": "epoch", "after": f"{old}:1", "resumes": f"{told[2]}:0"}}
        assert (again["position"], again["data"]) == (f"{told[2]}:1", "before")
        bus.publish("chat", "after")
        assert json.loads(tail.lines(4)[3])["position"] == f"{told[2]}:2"


# What goes wrong


def complaint(*arguments: str, code: int, stdin: bytes = b"", program: list[str] = COMMAND) -> str:
    """What a command says that fails as it should: one or two lines, and nothing on stdout."""
    done = run(*arguments, stdin=stdin, program=program)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert 1 <= done.stderr.count("\n") <= 2
    assert all(line.startswith("penstock: ") for line in done.stderr.splitlines())
    return done.stderr


@pytest.mark.parametrize("name", ["tail", "stats", "trim", "renew"])
@pytest.mark.parametrize("there", [[], ["app.db"]])
def test_only_publish_begins_a_log(folder: Path, name: str, there: list[str]) -> None:
    for file in there:
        Path(file).touch()
    assert f"there is no log sqlite:///{folder}/app.db" in complaint(name, URL, code=3)
    assert os.listdir() == there
    assert all(not os.path.getsize(file) for file in there)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tail"], "Missing argument 'URL'"),
        (["follow", URL], "No such command 'follow'"),
        (["publish", URL, "chat", "-5"], "No such option '?-5"),
        (["publish", "app.db", "chat", "x"], "without a scheme"),
        (["publish", "nosuch://host", "chat", "x"], "no log is known for 'nosuch:'"),
        (["publish", "sqlite://app.db", "chat", "x"], "three slashes"),
        (["publish", "memory:", "chat", "x"], "memory of one process"),
        (["publish", URL, "a b", "x"], "white space"),
        (["publish", URL, "room/*", "x"], "wildcard"),
        (["publish", URL, "chat", "x", "--event", "penstock.end"], "are ours"),
        (["publish", URL, "chat", "x", "--event", "a\nid: 1"], "forge another field"),
        (["publish", URL, "chat", "x", "--retry", "soon"], "not a valid integer"),
        (["publish", URL, "chat", "x", "--retry", "-1"], "retry is a whole number"),
        (["publish", URL, "chat", "x", "--max-event-bytes", "none"], "max_event_bytes is a whole number"),
        (["publish", URL, "chat", "x" * 100, "--max-event-bytes", "50"], "over the limit of 50"),
        (["tail", URL, "room*"], "whole segment"),
        (["tail", URL, "--after", "42"], "'42' is not a position"),
        (["tail", URL, "--after", "a:1", "--last", "1"], "give one of them"),
        (["tail", URL, "--last", "-1"], "--last"),
        (["trim", URL, "--max-age", "24x"], "is not an age"),
        (["trim", URL, "--max-bytes", "1KiB"], "max_bytes is a whole number from 65536"),
    ],
)
def test_wrong_usage_and_bad_events_exit_with_2(folder: Path, arguments: list[str], says: str) -> None:
    assert re.search(says, complaint(*arguments, code=2))
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("stdin", "says"), [(b"caf\xe9", "not UTF-8 (at byte 3)"), (b"x" * 262_145, "over 262144 bytes")]
)
def test_stdin_that_is_no_event_exits_with_2(folder: Path, stdin: bytes, says: str) -> None:
    assert says in complaint("publish", URL, "chat", "-", stdin=stdin, code=2)
    assert os.listdir() == []


def test_arguments_that_are_not_utf_8_exit_with_2(folder: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "publish", URL, "chat", b"caf\xe9"], capture_output=True, env=environment(), timeout=60
    )
    assert done.returncode == 2
    assert b"lone surrogate at character 3" in done.stderr
    done = subprocess.run(
        [*COMMAND, "stats", b"sqlite:///caf\xe9.db"], capture_output=True, env=environment(), timeout=60
    )
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def newer_schema(file: Path) -> None:
    with Penstock(URL) as bus:
        bus.publish("chat", "x")
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 99")


def damage(file: Path) -> None:
    with Penstock(URL) as bus:
        bus.publish_many([Event("chat", "x" * 1_000) for _ in range(200)])
    with file.open("r+b") as pages:
        pages.seek(4096)
        pages.write(b"\xff" * (file.stat().st_size - 4096))


def database_of_another(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE invoice (id)")


def diary(file: Path) -> None:
    file.write_text("Dear diary, today I was no log.\n")


UNUSABLE: dict[str, Callable[[Path], None]] = {
    "no SQLite file": diary,
    "a SQLite database of another program": database_of_another,
    "has schema version 99": newer_schema,
    "is damaged": damage,
    "is no file that this user may read": Path.mkdir,
}


@pytest.mark.parametrize("says", UNUSABLE)
def test_a_log_that_cannot_be_used_exits_with_3_and_is_left_alone(folder: Path, says: str) -> None:
    file = folder / "app.db"
    UNUSABLE[says](file)
    before = file.read_bytes() if file.is_file() else b""
    for arguments in (
        ["publish", URL, "chat", "x"],
        ["tail", URL],
        ["tail", URL, "--no-follow"],
        ["stats", URL],
    ):
        assert says in complaint(*arguments, code=3)
    assert (file.read_bytes() if file.is_file() else b"") == before


def test_a_folder_that_is_not_there_exits_with_3(folder: Path) -> None:
    said = complaint("publish", "sqlite:///nowhere/app.db", "chat", "x", code=3)
    assert f"the folder {folder}/nowhere is not there" in said
    assert os.listdir() == []


IMPATIENT = with_settings(  # else it waits for 5 s
    "penstock.log.sqlite.SQLiteLog.__init__.__kwdefaults__['busy_timeout_s'] = 0.1"
)


@pytest.fixture
def locked(bus: Penstock) -> Iterator[None]:
    """Another process of the machine holds the log, and does not let go."""
    bus.publish("chat", "x")
    with contextlib.closing(sqlite3.connect("app.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.usefixtures("locked")
def test_a_log_that_is_away_exits_with_3() -> None:
    assert "another process held" in complaint("trim", URL, code=3, program=IMPATIENT)


@pytest.mark.usefixtures("locked")
def test_a_publisher_that_is_stopped_does_not_know_and_exits_with_4(folder: Path) -> None:
    command = [*IMPATIENT, "publish", URL, "chat", "x"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as publisher:
        process = psutil.Process(publisher.pid)
        wait_for(
            lambda: str(folder / "app.db") in {file.path for file in process.open_files()},
            what="the publisher has opened the log",
        )
        publisher.send_signal(signal.SIGINT)
        out, err = publisher.communicate(timeout=DEADLINE_S)
    assert (publisher.returncode, out) == (4, b"")
    assert err == b"penstock: stopped before the log had answered: the event is stored or not\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_output_that_cannot_be_written_exits_with_1(bus: Penstock) -> None:
    bus.publish("chat", "x")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "stats", URL], stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=60
        )
    assert done.returncode == 1
    assert re.fullmatch(rb"penstock: .*No space left on device\n", done.stderr)


def test_without_click_it_says_what_to_install() -> None:
    program = [
        sys.executable,
        "-c",
        "import sys; sys.modules['click'] = None\nfrom penstock.cli import main; main()",
    ]
    assert "pip install 'penstock[cli]'" in complaint("--help", code=2, program=program)


# Help


def test_the_script_is_the_module() -> None:
    script = Path(sys.executable).with_name("penstock")
    for program in (COMMAND, [str(script)]):
        assert run("--version", program=program).stdout == f"penstock {__version__}\n"


def test_help_teaches_by_examples_that_are_right() -> None:
    assert re.search(r"Exit codes:\n +0 .*\n +1 .*\n +2 .*\n +3 .*\n +4 ", output("--help"))
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == output("--help")
    for name in command.commands:
        examples = re.findall(
            r"^ +penstock (.+)$", output(name, "--help").split("Examples:")[1], re.MULTILINE
        )
        assert examples
        for example in examples:
            check_usage(example)


def test_the_page_of_the_command_names_all_and_nothing_else() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    for name, each in command.commands.items():
        assert f"penstock {name}" in page
        for option in each.params:
            assert not isinstance(option, click.Option) or any(f"`{opt}" in page for opt in option.opts)
    examples = re.findall(r"^penstock (\w.+)$", page, re.MULTILINE)
    assert len(examples) > 10
    for example in examples:
        check_usage(example)


def check_usage(example: str) -> None:
    """Let the command's parser judge an example, as a shell would hand it over."""
    words = re.split(r" [|<#&]", re.sub(r"\$\(.*?\)", "k3v9x2ab:42", example))[0]
    read = subprocess.run(["sh", "-c", f"printf '%s\\0' {words}"], capture_output=True, text=True, check=True)
    name, *arguments = read.stdout.split("\0")[:-1]
    command.commands[name].make_context(name, arguments)
