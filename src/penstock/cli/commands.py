"""What the command ``penstock`` can do, on any log: init, publish, tail, stats, trim, renew."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import click

from penstock import Event, Gap, Options, Position, __version__
from penstock.cli.logs import bus_of, file_of, is_missing, named_log, opened_log, stored, time_of
from penstock.cli.terminal import (
    AGE,
    COUNT,
    SIZE,
    Stopped,
    as_json,
    as_size,
    as_text,
    as_time,
    complain,
    read_stdin,
    say,
    when_nobody_reads,
)
from penstock.core.channel import Subscription
from penstock.errors import AppendUnsure
from penstock.log.base import Installable

_EXIT_CODES = """\b
Exit codes:
  0  done; also when whoever read the output has gone
  1  something unexpected
  2  wrong usage, a URL that cannot work, an event that may not be stored
  3  not done: the log is away, not there or not usable; nothing was stored
  4  unsure: the event is stored or not; publish it again with the same --key
Ctrl-C and SIGTERM end it as they end any program (in a shell: 130, 143)."""


def _examples(*lines: str) -> str:
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


class _InOrder(click.Group):
    """Lists the commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    invoke_without_command=True,
    epilog=_examples(
        "penstock init sqlite:///penstock.db",
        'penstock publish sqlite:///penstock.db chat "hello"',
        "penstock tail sqlite:///penstock.db 'room/*' --last 20",
        "penstock stats sqlite:///penstock.db --json",
        "penstock trim sqlite:///penstock.db --max-age 7d",
        "penstock renew sqlite:///penstock.db",
        "penstock tail --help",
    )
    + f"\n\n{_EXIT_CODES}",
)
@click.version_option(__version__, message="penstock %(version)s")
@click.pass_context
def penstock(ctx: click.Context) -> None:
    """Publish to a Penstock log, follow it, and look after it.

    URL names the log as in the app: sqlite:///relative.db (in this folder) or
    sqlite:////absolute.db. Apps may be at work on it meanwhile.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


@penstock.command(
    epilog=_examples(
        "penstock init sqlite:///penstock.db",
        "penstock init 'postgresql://owner@db.example/app?create=init'",
    )
)
@click.argument("url")
def init(url: str) -> None:
    """Make a log ready.

    Apps do that by themselves, by the first use. This is for a log that only another user
    may make, and to see that a log can be reached and written before an app relies on it.

    Prints what it made, and the log's epoch. A log that is there already is left as it is.
    """
    with contextlib.closing(named_log(url)) as log:
        begins = is_missing(log)
        made = log.install() if isinstance(log, Installable) else log.url if begins else None
        log.open()
        epoch = log.bounds().epoch
    say(f"made {made}" if made else f"it was there: {log.url}")
    say(f"epoch {epoch}")


@penstock.command(
    epilog=_examples(
        """penstock publish sqlite:///penstock.db chat '{"text": "hello"}'""",
        "penstock publish sqlite:///penstock.db orders - --event paid <order.json",
        "penstock publish sqlite:///penstock.db jobs done --key job-17",
        'penstock publish sqlite:///penstock.db chat -- "-5 degrees"',
    )
)
@click.argument("url")
@click.argument("channel")
@click.argument("data")
@click.option("--event", metavar="TYPE", help="The event type; browsers take none for 'message'.")
@click.option("--key", help="A channel stores the same key once: it is safe to try again.")
@click.option("--retry", type=int, metavar="MS", help="Browsers are to reconnect after so long.")
@click.option(
    "--max-event-bytes", metavar="SIZE", default="256KiB", show_default=True, help="Refuse what is larger."
)
def publish(
    url: str,
    channel: str,
    data: str,
    event: str | None,
    key: str | None,
    retry: int | None,
    max_event_bytes: str,
) -> None:
    """Publish DATA to CHANNEL.

    Prints the event's position, once it is stored. DATA is stored as it is; '-' reads
    it from stdin, as UTF-8, less one newline at its end.

    A log that is not there yet is begun, and stderr says so.
    """
    log = named_log(url)
    size: Any = SIZE.read(max_event_bytes)
    limit = Options(max_event_bytes=size).max_event_bytes
    checked = Event(channel, read_stdin(limit) if data == "-" else data, event, retry, key)
    with contextlib.closing(log):
        begins = is_missing(log)
    with bus_of(url, max_event_bytes=limit) as bus:  # the log's own URL, which is shown, has no password
        try:
            (position,) = bus.publish_many([checked])
        except Stopped as stopped:
            raise AppendUnsure("stopped before the log had answered: the event is stored or not") from stopped
    if begins:
        complain(f"there was no log, so one was begun: {log.url}")
    say(str(position))


@penstock.command(
    epilog=_examples(
        "penstock tail sqlite:///penstock.db",
        "penstock tail sqlite:///penstock.db chat 'room/*' --last 20",
        "penstock tail sqlite:///penstock.db chat --after k3v9x2ab:42 --json",
        "penstock tail sqlite:///penstock.db --no-follow --json | jq -r .data",
    )
)
@click.argument("url")
@click.argument("channels", metavar="[CHANNEL]...", nargs=-1)
@click.option("--after", metavar="POSITION", help="Begin after it, or with the 'earliest' event.")
@click.option("--last", metavar="N", type=click.IntRange(0), help="Begin with the last N.")
@click.option("--json", "json_lines", is_flag=True, help="Print each event as a line of JSON.")
@click.option("--no-follow", is_flag=True, help="Print what is there, and exit.")
def tail(
    url: str,
    channels: tuple[str, ...],
    after: str | None,
    last: int | None,
    json_lines: bool,
    no_follow: bool,
) -> None:
    """Print events as they come.

    Those of each CHANNEL or pattern, or all. It begins with the next event, or where
    --after or --last say, and with --no-follow at the earliest. It ends when all
    CHANNELs have ended, or when it is stopped.

    A line has time (UTC), channel, type and data, parted by tabs; further lines of the
    data begin with a tab. With --json it is an object: position, seq, time, channel,
    event, data, retry, key, end.

    Events that are gone are told on stderr, with --json also as {"gap": {...}}.
    """
    if after is not None and last is not None:
        raise click.UsageError("--after and --last both say where to begin: give one of them")
    begin = Position.parse(after) if after not in (None, "earliest") else after
    wanted = Subscription(channels or ["**"])
    form = as_json if json_lines else as_text

    def tell(gap: Gap) -> None:
        complain(f"gap after {gap.after}: {gap.reason.meaning}; going on after {gap.resumes}")
        if json_lines:
            what = {"reason": gap.reason, "after": gap.after, "resumes": str(gap.resumes)}
            say(json.dumps({"gap": what}))

    with opened_log(url) as log:
        if no_follow:
            for record in stored(log, wanted, begin, last, tell):
                say(form(record))
            return
    with bus_of(url) as bus, bus.subscribe(*wanted.names, after=begin, last=last, on_gap=tell) as records:
        when_nobody_reads(bus.drain)
        for record in records:
            say(form(record))


@penstock.command(
    epilog=_examples(
        "penstock stats sqlite:///penstock.db",
        'penstock tail URL --after "$(penstock stats URL --json | jq -r .position)"',
    )
)
@click.argument("url")
@click.option("--json", "json_line", is_flag=True, help="Print a JSON object, times as seconds since 1970.")
def stats(url: str, json_line: bool) -> None:
    """Print what a log holds.

    Its position, epoch, first and head (numbers of the oldest and newest event), how many
    events it has, the times of the oldest and newest, and the size of a SQLite file.
    """
    with opened_log(url) as log:
        bounds = log.bounds()
        known: dict[str, Any] = {
            "log": log.url,
            "position": str(Position(bounds.epoch, bounds.head)),
            **bounds._asdict(),
            "events": bounds.head - bounds.first + 1,
            "oldest": time_of(log, bounds.first) if bounds.first <= bounds.head else None,
            "newest": time_of(log, bounds.head) if bounds.first <= bounds.head else None,
        }
        if (file := file_of(log)) is not None:
            parts = (file, Path(f"{file}-wal"))
            known["bytes"] = sum(part.stat().st_size for part in parts if part.exists())
    if json_line:
        say(json.dumps(known))
        return
    for name in ("oldest", "newest"):
        known[name] = as_time(known[name]) if known[name] is not None else "-"
    if "bytes" in known:
        known["size"] = as_size(known.pop("bytes"))
    for name, value in known.items():
        say(f"{name:10}{value}")


@penstock.command(
    epilog=_examples(
        "penstock trim sqlite:///penstock.db",
        "penstock trim sqlite:///penstock.db --max-age 7d --max-events none",
        "penstock trim sqlite:///penstock.db --max-bytes 512MiB",
    )
)
@click.argument("url")
@click.option("--max-age", metavar="AGE", default="24h", show_default=True, help="Remove what is older.")
@click.option("--max-events", metavar="N", default="1M", show_default=True, help="Keep no more.")
@click.option("--max-bytes", metavar="SIZE", default="1GiB", show_default=True, help="Use no more storage.")
def trim(url: str, max_age: str, max_events: str, max_bytes: str) -> None:
    """Remove the oldest events.

    Prints how many. Apps do this by themselves, as they are set; this is for a log that
    no app looks after, and for keeping less. Each limit has the default of an app;
    'none' is no limit.

    Clients that had not had what is removed are told of a gap. A SQLite file does not
    shrink: its room is used again.
    """
    limits = Options(
        max_age=AGE.read(max_age), max_events=COUNT.read(max_events), max_bytes=SIZE.read(max_bytes)
    )
    with opened_log(url) as log:
        removed = log.trim(limits.retention)
        _, first, head = log.bounds()
    say(f"removed {removed}, left {head - first + 1}")


@penstock.command(epilog=_examples("penstock renew sqlite:///penstock.db"))
@click.argument("url")
def renew(url: str) -> None:
    """Begin a new epoch, after a restore.

    A log that was restored from a backup gives out numbers again that clients have had
    for other events. In a new epoch no earlier position means anything: each client that
    comes back is told of a gap, and gets all that the log has. No event is removed.

    Prints the old and the new epoch. It asks nothing, and may run while apps are at work;
    each run begins one more epoch.
    """
    with opened_log(url) as log:
        old = log.bounds().epoch
        log.open(renew=old)
        new = log.bounds().epoch
    say(f"old epoch {old}\nnew epoch {new}")
