"""What is told when the log cannot be used, is full, or is something else; and what somebody did by hand."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock import Penstock
from penstock.core.event import Event
from penstock.core.position import Bounds
from penstock.errors import (
    ConfigError,
    EventTooLarge,
    LogCorrupt,
    LogDenied,
    LogFull,
    LogUnavailable,
    LogUnusable,
    NotALog,
    SchemaTooNew,
)
from penstock.log.base import Log, Retention
from penstock.testing.storage import everything
from tests.log.contents import data_of, some
from tests.log.nats.conftest import Logs
from tests.support.certificate import Certificate
from tests.support.nats import NatsServer, jetstream, need_nats, new_stream, open_nats, publish
from tests.support.needs import need_openssl
from tests.support.ports import free_port
from tests.support.wait import wait_for

pytestmark = need_nats


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[NatsServer]:
    """A server of a test's own, not started yet."""
    server = NatsServer(tmp_path)
    yield server
    server.kill()


# Servers


def test_a_server_without_jetstream_is_told_with_the_cure(apart: NatsServer, logs: Logs) -> None:
    apart.configure(jetstream="off")
    apart.start()
    log = logs(f"{apart.url}/x")
    for call in (log.open, log.exists, lambda: log.append(some("1"))):
        with pytest.raises(LogUnusable, match="--jetstream"):
            call()
    apart.stop()
    apart.configure()
    apart.start()
    log.append(some("1"))
    assert data_of(log) == ["1"]


def test_an_account_without_jetstream_is_told(apart: NatsServer, logs: Logs) -> None:
    apart.configure("accounts { A { users: [{user: a, password: a}] } }")
    apart.start()
    with pytest.raises(LogUnusable, match="not for this account"):
        logs(f"nats://a:a@127.0.0.1:{apart.port}/x").open()


@pytest.mark.parametrize("login", ["me:wr0ng@", "wr0ng@", ""])
def test_who_is_not_let_in_is_told_without_the_password(apart: NatsServer, logs: Logs, login: str) -> None:
    apart.configure("authorization { user: me, password: right }")
    apart.start()
    log = logs(f"nats://{login}127.0.0.1:{apart.port}/x")
    with pytest.raises(LogDenied, match="check user and password") as caught:
        log.append(some("1"))
    assert "wr0ng" not in f"{caught.value} {caught.value.__cause__}"
    right = logs(f"nats://me:right@127.0.0.1:{apart.port}/x")
    assert not right.exists()
    right.append(some("1"))


def test_a_token_opens_the_log(apart: NatsServer, logs: Logs) -> None:
    apart.configure('authorization { token: "s3cret" }')
    apart.start()
    log = logs(f"nats://s3cret@127.0.0.1:{apart.port}/x")
    log.append(some("1"))
    assert data_of(log) == ["1"]


Call = Callable[[Log], object]
PERMISSIONS: dict[str, tuple[str, Call]] = {
    "to store": ('publish: { deny: ["STREAM_.log.>"] }', lambda log: log.append(some("1"))),
    "to ask JetStream": ('publish: { deny: ["$JS.API.>"] }', lambda log: log.open()),
    "to hear answers": ('subscribe: { deny: ["_INBOX.>"] }', lambda log: log.open()),
    "to hear what was stored": ('subscribe: { deny: ["STREAM_.stored.>"] }', lambda log: log.wait(0)),
    "to purge": (
        'publish: { deny: ["$JS.API.STREAM.PURGE.>"] }',
        lambda log: log.trim(Retention(None, 0, None)),
    ),
}


@pytest.mark.parametrize("what", PERMISSIONS)
def test_what_may_not_be_done_is_told_at_once(apart: NatsServer, logs: Logs, what: str) -> None:
    stream = new_stream()
    denied, call = PERMISSIONS[what]
    permissions = denied.replace("STREAM_", stream)
    users = f"{{user: all, password: all}}, {{user: some, password: some, permissions: {{ {permissions} }}}}"
    apart.configure(f"authorization {{ users: [{users}] }}")
    apart.start()
    logs(f"nats://all:all@127.0.0.1:{apart.port}/{stream}").append(some("0"))
    log = logs(f"nats://some:some@127.0.0.1:{apart.port}/{stream}?timeout=60")
    with pytest.raises(LogDenied, match="permissions violation"):
        call(log)


def test_the_permissions_of_the_page_are_enough(apart: NatsServer, logs: Logs) -> None:
    page = (Path(__file__).parents[3] / "docs" / "nats.md").read_text()
    [block] = [part for part in page.split("```")[1::2] if part.startswith("\nauthorization")]
    apart.configure(block.replace("penstock", "log"))
    apart.start()
    log = logs(f"nats://app:change-me@127.0.0.1:{apart.port}/log?inbox=_INBOX.app")
    log.append([Event("check", "1", key="1"), Event("check/2", "2")])
    log.wait(0)
    assert [record.data for record in log.read(0, 10)] == ["1", "2"]
    for _ in range(3):
        log.append(some("3", "4"))
    assert len(everything(logs(log_url(log, "app:change-me", "inbox=_INBOX.app")))) == 8
    assert log.trim(Retention(None, 3, None)) == 5


def log_url(log: Log, login: str, query: str) -> str:
    return f"{log.url.replace('nats://', f'nats://{login}@')}?{query}"


def test_replicas_need_a_cluster(url: str, logs: Logs) -> None:
    with pytest.raises(LogUnusable, match="replicas= needs a cluster"):
        logs(f"{url}?replicas=3").open()


def test_what_is_no_nats_server_is_told(logs: Logs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def greet() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=greet, daemon=True).start()
        log = logs(f"nats://127.0.0.1:{stranger.getsockname()[1]}/x")
        with pytest.raises(LogUnavailable, match="no server of"):
            log.open()


def test_nobody_there_is_told(logs: Logs) -> None:
    port = free_port()
    with pytest.raises(LogUnavailable, match=f"127.0.0.1:{port}.*nothing was stored"):
        logs(f"nats://127.0.0.1:{port}/x").append(some("1"))


def test_a_name_without_an_address_is_told(logs: Logs) -> None:
    with pytest.raises(LogUnavailable, match=r"nowhere\.invalid"):
        logs("nats://nowhere.invalid/x").open()


def test_a_name_with_an_address_is_found(server: NatsServer, logs: Logs, stream: str) -> None:
    log = logs(f"nats://localhost:{server.port}/{stream}")
    log.append(some("1"))
    assert data_of(log) == ["1"]


# TLS


@pytest.fixture
def secured(apart: NatsServer, tmp_path: Path) -> Certificate:
    certificate = Certificate(tmp_path)
    apart.configure(f'tls {{ cert_file: "{certificate.file}", key_file: "{certificate.key}" }}')
    apart.start()
    return certificate


@need_openssl
@pytest.mark.parametrize("more", ["", "&tls=yes"])
def test_tls_is_spoken_where_the_server_wants_it(
    apart: NatsServer, secured: Certificate, logs: Logs, more: str
) -> None:
    log = logs(f"{apart.url}/x?tls_ca={secured.file}{more}")
    log.append(some("1"))
    log.wait(0)
    assert data_of(log) == ["1"]
    apart.kill()
    apart.start()
    assert data_of(log) == ["1"]


@need_openssl
def test_a_certificate_that_is_not_trusted_is_told_with_the_cure(
    apart: NatsServer, secured: Certificate, logs: Logs
) -> None:
    with pytest.raises(LogUnusable, match="tls_ca="):
        logs(f"{apart.url}/x").open()


def test_nothing_secret_is_said_to_a_server_without_tls_if_tls_is_demanded(logs: Logs) -> None:
    heard = b""
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            nonlocal heard
            for _ in range(2):
                connection, _ = plain.accept()
                with connection:
                    connection.sendall(
                        b'INFO {"server_id":"x","version":"2.9.0","max_payload":1,"auth_required":true}\r\n'
                    )
                    while data := connection.recv(1000):
                        heard += data

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        for login in ("me:s3cret", "s3cret"):
            log = logs(f"nats://{login}@127.0.0.1:{plain.getsockname()[1]}/x?tls=yes")
            with pytest.raises(LogUnavailable, match="has no TLS"):
                log.open()
        thread.join(10)
    assert b"s3cret" not in heard


def test_certificates_that_cannot_be_read_are_told(url: str, logs: Logs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        logs(f"{url}?tls_ca={tmp_path}/none.pem").open()


# Streams that are no logs


def make(server: NatsServer, stream: str, **more: object) -> None:
    told = jetstream(server.url, f"STREAM.CREATE.{stream}", name=stream, **more)
    assert "error" not in told, told


def test_a_stream_of_another_kind_is_left_as_it_is(server: NatsServer, stream: str, logs: Logs) -> None:
    make(server, stream, subjects=[f"{stream}.orders.>"])
    log = logs()
    for call in (log.open, log.bounds, lambda: log.append(some("1"))):
        with pytest.raises(NotALog, match="left as it is"):
            call()
    assert jetstream(server.url, f"STREAM.INFO.{stream}")["state"]["messages"] == 0


def test_subjects_of_another_stream_are_not_taken(server: NatsServer, stream: str, logs: Logs) -> None:
    make(server, f"{stream}-all", subjects=[f"{stream}.>"])
    with pytest.raises(NotALog, match="another stream has subjects"):
        logs().open()


def test_messages_of_others_are_told(server: NatsServer, stream: str, logs: Logs) -> None:
    log, other = logs(), logs()
    log.append(some("1"))
    publish(server.url, f"{stream}.log.check", b"hello")
    for one in (log, other):
        with pytest.raises(NotALog, match="not of Penstock"):
            one.bounds()
    with pytest.raises(NotALog):
        other.append(some("2"))


def test_a_newer_schema_is_told(server: NatsServer, stream: str, logs: Logs) -> None:
    logs().append(some("1"))
    publish(server.url, f"{stream}.log.check", b"penstock 2 what comes next\n")
    with pytest.raises(SchemaTooNew, match="upgrade Penstock"):
        logs().open()


@pytest.mark.parametrize("payload", [b"penstock 1 what is that\n", b"penstock 1 a b c 7 0 1 0 1.0 0 0 0\n"])
def test_damage_is_told(server: NatsServer, stream: str, logs: Logs, payload: bytes) -> None:
    logs().append(some("1"))
    publish(server.url, f"{stream}.log.check", payload)
    with pytest.raises(LogCorrupt):
        logs().bounds()


def test_a_stream_that_was_made_without_what_a_log_needs_is_told(
    server: NatsServer, stream: str, logs: Logs
) -> None:
    make(server, stream, subjects=[f"{stream}.log.>", f"{stream}.channel.>", f"{stream}.key.*"])
    with pytest.raises(LogUnusable, match="republish"):
        logs().open()


def ours(stream: str) -> dict[str, object]:
    return {
        "subjects": [f"{stream}.log.>", f"{stream}.channel.>", f"{stream}.key.*"],
        "republish": {"src": f"{stream}.log.>", "dest": f"{stream}.stored.>"},
        "retention": "limits",
        "discard": "new",
    }


def test_a_stream_that_somebody_made_for_it_becomes_a_log(
    server: NatsServer, stream: str, logs: Logs
) -> None:
    make(server, stream, **ours(stream), storage="file")
    log = logs()
    assert not log.exists()
    log.append(some("1"))
    assert log.exists()
    assert data_of(logs()) == ["1"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"storage": "memory"}, "gone when its servers end"),
        ({"max_age": 10**12}, "max_age is set"),
        ({"max_msgs_per_subject": 1_000}, "max_msgs_per_subject is set"),
        ({"max_bytes": 1_000_000, "discard": "old"}, "set discard=new"),
    ],
)
def test_dangerous_settings_are_told_once(
    server: NatsServer,
    stream: str,
    logs: Logs,
    caplog: pytest.LogCaptureFixture,
    setting: dict[str, object],
    said: str,
) -> None:
    make(server, stream, **{**ours(stream), **setting})
    log = logs()
    with caplog.at_level(logging.WARNING, "penstock.log"):
        for _ in range(3):
            log.append(some("1"))
            log.open()
    [line] = [record.getMessage() for record in caplog.records]
    assert said in line


# No room


def update(server: NatsServer, stream: str, **more: object) -> None:
    config = jetstream(server.url, f"STREAM.INFO.{stream}")["config"]
    told = jetstream(server.url, f"STREAM.UPDATE.{stream}", **{**config, **more})
    assert "error" not in told, told


def until_full(log: Log, data: str) -> LogFull:
    for _ in range(100):
        try:
            log.append(some(data))
        except LogFull as error:
            return error
    raise AssertionError("it is not full")


@pytest.mark.parametrize("limit", [{"max_msgs": 10}, {"max_bytes": 3_000}])
def test_a_full_stream_is_told_and_room_is_made_by_trimming(
    server: NatsServer, stream: str, logs: Logs, limit: dict[str, object]
) -> None:
    log = logs()
    log.append(some("1"))
    update(server, stream, **limit)
    assert "no room: maximum" in str(until_full(log, "more"))
    head = log.bounds().head
    with pytest.raises(LogFull):
        log.append([Event("check", "with a key", key="1")])
    assert log.bounds().head == head
    assert log.read(0, 1)[0].data == "1"
    update(server, stream, max_msgs=-1, max_bytes=-1)
    assert log.trim(Retention(None, 1, None)) == head - 1
    update(server, stream, **limit)
    assert log.append(some("again")).first == head + 1


def test_a_full_server_is_told_and_goes_on_when_there_is_room(apart: NatsServer, logs: Logs) -> None:
    apart.configure(jetstream="max_file_store: 3MB")
    apart.start()
    log = logs(f"{apart.url}/x")
    assert "nothing was stored" in str(until_full(log, "x" * 100_000))
    first, stored = log.bounds()[1:]
    assert first == 1
    assert stored > 10
    with pytest.raises(LogFull):
        log.append(some("y" * 100_000))
    apart.stop()
    apart.configure(jetstream="max_file_store: 30MB")
    apart.start()
    assert log.trim(Retention(None, 2, None)) == stored - 2
    assert log.append(some("z" * 100_000)).first == stored + 1


def test_what_is_too_large_for_the_server_is_refused(apart: NatsServer, logs: Logs) -> None:
    apart.configure("max_payload: 100KB")
    apart.start()
    log = logs(f"{apart.url}/x")
    with pytest.raises(EventTooLarge, match="over the server's max_payload of 102400; nothing was stored"):
        log.append(some("x" * 60_000, "x" * 60_000))
    assert log.append(some("x" * 60_000)).first == 1


def test_publishers_who_are_too_large_together_are_stored_apart(apart: NatsServer) -> None:
    apart.configure("max_payload: 100KB")
    apart.start()
    with Penstock(f"{apart.url}/x") as bus:
        threads = [threading.Thread(target=bus.publish, args=("check", str(n) * 60_000)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(EventTooLarge):
            bus.publish("check", "x" * 110_000)
        found = bus.subscribe("check", after="earliest")
        assert sorted(next(found).data[0] for _ in range(8)) == [str(n) for n in range(8)]


def test_what_is_too_large_for_the_stream_is_refused(server: NatsServer, stream: str, logs: Logs) -> None:
    log = logs()
    log.append(some("1"))
    update(server, stream, max_msg_size=10_000)
    with pytest.raises(EventTooLarge, match="max_msg_size"):
        log.append(some("x" * 10_000))
    assert log.append(some("2")).first == 2


# What somebody did by hand


def test_what_was_purged_by_hand_is_trimmed(server: NatsServer, stream: str, logs: Logs) -> None:
    log, other = logs(), logs()
    for number in range(10):
        log.append(some(str(number)))
    epoch = log.bounds().epoch
    jetstream(server.url, f"STREAM.PURGE.{stream}", keep=3)
    for one in (log, other):
        assert one.bounds() == Bounds(epoch, 8, 10)
        assert data_of(one) == ["7", "8", "9"]
    jetstream(server.url, f"STREAM.PURGE.{stream}", filter=f"{stream}.>")
    assert log.bounds() == Bounds(epoch, 11, 10)
    assert log.append(some("next")).first == 11
    assert other.bounds() == logs().bounds() == Bounds(epoch, 11, 11)


def test_a_stream_that_was_emptied_and_that_nobody_remembers_begins_anew(
    server: NatsServer, stream: str, logs: Logs
) -> None:
    log = logs()
    epoch = log.append(some("1")).epoch
    log.close()
    jetstream(server.url, f"STREAM.PURGE.{stream}")
    appended = logs().append(some("2"))
    assert appended.first == 1
    assert appended.epoch != epoch


def test_what_the_server_removes_by_its_own_limits_is_trimmed(
    server: NatsServer, stream: str, logs: Logs
) -> None:
    log, other = logs(), logs()
    for number in range(3):
        log.append(some(str(number)))
    update(server, stream, max_age=100_000_000, duplicate_window=100_000_000)  # nanoseconds
    wait_for(lambda: other.bounds()[1:] == (4, 3), what="all is gone")
    update(server, stream, max_age=0)
    assert log.append(some("next")).first == 4
    assert data_of(other) == data_of(logs()) == ["next"]


def test_a_message_that_was_removed_from_the_middle_is_no_reason_to_stop(
    server: NatsServer, stream: str, logs: Logs
) -> None:
    """Who reads is told by a seq that does not follow."""
    log, other = logs(), logs()
    for number in range(1, 7):
        log.append(some(str(number)))
    jetstream(server.url, f"STREAM.MSG.DELETE.{stream}", seq=4)  # the third event
    for one in (log, other):
        assert [record.seq for record in one.read(0, 10)] == [1, 2]
        assert [record.seq for record in one.read(2, 10)] == [4, 5, 6]
        assert [record.seq for record in one.read(4, 10)] == [5, 6]
    assert log.trim(Retention(None, 4, None)) == 2
    assert [record.seq for record in other.read(0, 10)] == [4, 5, 6]


def test_exists_makes_nothing(server: NatsServer, stream: str) -> None:
    log = open_nats(f"{server.url}/{stream}")
    assert not log.exists()
    assert jetstream(server.url, f"STREAM.INFO.{stream}")["error"]["err_code"] == 10059
    log.open()
    assert log.exists()
    log.close()
