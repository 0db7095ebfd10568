"""What is wrong with a server, or with what lies in it, as a log tells it. Each is a real one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.core.event import Event
from penstock.errors import (
    LogCorrupt,
    LogDenied,
    LogError,
    LogFull,
    LogUnavailable,
    NotALog,
    SchemaTooNew,
)
from penstock.log import open_log
from penstock.log.base import Log, Retention
from penstock.testing.storage import everything, some
from tests.support.certificate import Certificate
from tests.support.needs import need_openssl
from tests.support.ports import free_port
from tests.support.redis import PROGRAM, RedisServer, need_redis, opened, replica_of, url_of
from tests.support.wait import wait_for

pytestmark = need_redis

USES: dict[str, Callable[[Log], object]] = {
    "open": lambda log: log.open(),
    "append": lambda log: log.append(some(1)),
    "read": lambda log: log.read(0, 10),
    "bounds": lambda log: log.bounds(),
    "wait": lambda log: log.wait(0),
    "trim": lambda log: log.trim(Retention()),
}
each_use = pytest.mark.parametrize("use", USES)


def refused(url: str, use: str, kind: type[LogError]) -> str:
    """The message of the error, which must be of that very kind."""
    log = open_log(url)
    try:
        with pytest.raises(LogError) as error:
            USES[use](log)
    finally:
        log.close()
    assert type(error.value) is kind, error.value
    return str(error.value)


# The way to the server


@each_use
def test_a_server_that_is_not_there_is_away(use: str) -> None:
    assert "nothing was stored" in refused(url_of(f"redis://127.0.0.1:{free_port()}"), use, LogUnavailable)


def test_a_socket_that_is_not_there_is_away(tmp_path: Path) -> None:
    assert "No such file" in refused(f"unix://{tmp_path}/none.sock", "open", LogUnavailable)


def test_a_name_that_nobody_knows_is_named_as_the_trouble() -> None:
    assert "name of the server" in refused(url_of("redis://no-such-host.invalid"), "open", LogUnavailable)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":nonsense\r\n", b"*1\r\n$x\r\n", b""]
)
def test_what_is_no_redis_is_away(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        refused(url_of(f"redis://127.0.0.1:{listener.getsockname()[1]}"), "append", LogUnavailable)
        thread.join()


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """One that wants a password, and has a user who may not do much."""
    with RedisServer(password="right") as server:
        yield server


@each_use
def test_a_wrong_password_is_denied_and_not_shown(use: str, guarded: RedisServer) -> None:
    for login in ("", ":wr0ng@", "user:wr0ng@", "right@"):
        message = refused(url_of(f"redis://{login}127.0.0.1:{guarded.port}"), use, LogDenied)
        assert "wr0ng" not in message
        assert "user and password" in message


def test_the_right_password_opens(guarded: RedisServer) -> None:
    for login in (":right@", "default:right@"):
        with opened(url_of(f"redis://{login}127.0.0.1:{guarded.port}")) as [log]:
            assert log.append(some(1)).first == 1
            assert "right" not in log.url


# As it stands in docs/redis.md.
LEAST = (
    "+evalsha +eval +hmget +hset +hget +hdel +xadd +xrange +xrevrange +xread +xtrim +xlen "
    "+exists +del +set +time"
)


def test_a_user_needs_no_more_than_the_page_says(server: RedisServer) -> None:
    page = (Path(__file__).parents[3] / "docs" / "redis.md").read_text()
    assert LEAST in page
    server.ask(
        "ACL", "SETUSER", "least", "on", ">pw", "resetkeys", "~{least}:*", "nocommands", *LEAST.split()
    )
    with opened(url_of(f"redis://least:pw@127.0.0.1:{server.port}", prefix="least")) as [log]:
        log.append([*some(5), Event("check", "keyed", key="key")])
        log.append([Event("check", "keyed", key="key")])
        log.wait(0)
        assert log.trim(Retention(None, 2, None)) == 4
        log.open(renew=log.bounds().epoch)
        assert len(everything(log)) == 2


@each_use
def test_a_user_who_may_not_is_denied(use: str, server: RedisServer) -> None:
    server.ask("ACL", "SETUSER", "nokeys", "on", ">pw", "allcommands", "resetkeys", "~other:*")
    server.ask("ACL", "SETUSER", "noscripts", "on", ">pw", "allkeys", "allcommands", "-evalsha", "-eval")
    for user in ("nokeys", "noscripts"):
        message = refused(url_of(f"redis://{user}:pw@127.0.0.1:{server.port}"), use, LogDenied)
        assert "docs/redis.md" in message


@need_openssl
def test_a_certificate_is_asked_for(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    options = ["--tls-cert-file", certificate.file, "--tls-key-file", certificate.key]
    options += ["--tls-ca-cert-file", certificate.file, "--tls-auth-clients", "no"]
    with contextlib.ExitStack() as stack:
        server = RedisServer(*map(str, options), tls=True)
        stack.callback(server.close)
        try:
            server.start()
        except AssertionError:
            if "tls" not in server.log.lower():
                raise
            pytest.skip("the server was built without TLS; the cure: one that was built with it")
        where = f"rediss://127.0.0.1:{server.port}"
        assert "TLS" in refused(url_of(where), "append", LogUnavailable)
        refused(url_of(f"redis://127.0.0.1:{server.port}"), "append", LogUnavailable)  # no TLS
        for trust in ({"ssl_ca_certs": certificate.file}, {"ssl_cert_reqs": "none"}):
            with opened(url_of(where, **trust)) as [log]:
                log.append([Event("check", "x" * 100_000)])
                log.wait(0)
                assert len(log.read(0, 10)) == 1


# What lies in it


def put_strange_things(server: RedisServer, prefix: str) -> Iterator[list[str]]:
    log, events = f"{{{prefix}}}:log", f"{{{prefix}}}:events"
    yield ["SET", log, "x"]
    yield ["HSET", log, "a", "b"]
    yield ["RPUSH", events, "x"]
    yield ["XADD", events, "*", "a", "b"]


@each_use
def test_what_is_no_log_is_left_as_it_is(use: str, server: RedisServer) -> None:
    for command in put_strange_things(server, "strange"):
        server.ask("DEL", "{strange}:log", "{strange}:events")
        server.ask(*command)
        before = server.ask("DUMP", command[1])
        assert "prefix=" in refused(server.url(prefix="strange"), use, NotALog)
        assert server.ask("DUMP", command[1]) == before
        assert server.ask("EXISTS", "{strange}:log", "{strange}:events") == 1


@each_use
def test_the_log_of_a_newer_version_is_left_as_it_is(use: str, server: RedisServer) -> None:
    url = server.url(prefix=f"newer{use}")
    with opened(url) as [log]:
        log.append(some(3))
    server.ask("HSET", f"{{newer{use}}}:log", "schema", "2")
    before = server.ask("HGETALL", f"{{newer{use}}}:log")
    assert "schema version 2" in refused(url, use, SchemaTooNew)
    assert server.ask("HGETALL", f"{{newer{use}}}:log") == before


@each_use
def test_a_log_that_something_else_has_changed_is_damaged(use: str, server: RedisServer) -> None:
    damages: dict[str, list[str]] = {
        "less": ["XTRIM", "EVENTS", "MAXLEN", "2"],
        "more": ["XADD", "EVENTS", "*", "a", "b"],
        "part": ["HDEL", "LOG", "head"],
    }
    for name, damage in damages.items():
        prefix = f"{name}-{use}"
        url = server.url(prefix=prefix)
        with opened(url) as [log]:
            for _ in range(3):
                log.append(some(1))
        keys = {"EVENTS": f"{{{prefix}}}:events", "LOG": f"{{{prefix}}}:log"}
        server.ask(*(keys.get(word, word) for word in damage))
        message = refused(url, use, LogCorrupt)
        assert "renew" in message
        assert keys["EVENTS"] in message


def test_what_is_no_block_is_told_as_damage(server: RedisServer) -> None:
    with opened(server.url(prefix="block")) as [log]:
        log.append(some(3))
        server.ask("XDEL", "{block}:events", "3-0")
        server.ask("XADD", "{block}:events", "5-0", "x", "no JSON")
        with pytest.raises(LogCorrupt):
            log.read(0, 10)
        with pytest.raises(LogCorrupt):
            log.append(some(1))


def test_whether_a_log_is_there_is_found_without_making_one(server: RedisServer) -> None:
    url = server.url()
    first, second = open_log(url), open_log(url)
    assert not first.exists()  # type: ignore[attr-defined]
    assert not second.exists()  # type: ignore[attr-defined]
    first.append(some(1))
    assert second.exists()  # type: ignore[attr-defined]
    first.close()
    second.close()


# What a server does not do now


def until_full(store: Callable[[], object]) -> None:
    with contextlib.suppress(LogFull):
        for _ in range(10_000):
            store()
        raise AssertionError("it is never full")


def test_a_full_memory_is_told_and_what_was_is_kept() -> None:
    with RedisServer() as server, opened(server.url()) as [log]:
        stored = [log.append(some(2))]  # in one block, of which a part will be trimmed
        stored += [log.append([Event("check", "x" * 200_000, key=str(n))]) for n in range(20)]
        used = int(server.info("used_memory"))
        server.ask("CONFIG", "SET", "maxmemory", used + 10_000_000)

        def store() -> None:
            stored.append(log.append([Event("check", "x" * 200_000, key=str(len(stored))), *some(3)]))

        until_full(store)
        for _ in range(5):
            with pytest.raises(LogFull, match="nothing was stored"):
                store()
        # To read, to renew and to make room is possible however full it is.
        server.ask("CONFIG", "SET", "maxmemory", int(server.info("used_memory")) - 1_000_000)
        kept = everything(log)
        assert [r.seq for r in kept] == list(range(1, stored[-1].seqs[-1] + 1))
        before = log.bounds()
        log.open(renew=before.epoch)
        assert log.bounds().epoch != before.epoch
        assert log.trim(Retention(None, len(kept) - 1, None)) == 1
        assert log.trim(Retention(None, 5, None)) == len(kept) - 6
        again = log.append([Event("check", "x" * 50_000, key="later")])
        assert again.first == stored[-1].seqs[-1] + 1


def test_a_new_log_is_not_begun_where_memory_is_full() -> None:
    with RedisServer() as server:
        server.ask("SET", "other", "x" * 5_000_000)
        server.ask("CONFIG", "SET", "maxmemory", 2_000_000)
        log = open_log(server.url())
        until_full(lambda: log.append(some(1)))
        log.close()


def test_a_server_that_cannot_write_to_its_disk_is_away(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with RedisServer("--dir", str(disk)) as server, opened(server.url()) as [log]:
        log.append(some(1))
        shutil.rmtree(disk)
        server.ask("CONFIG", "SET", "save", "1 1")
        wait_for(
            lambda: server.info("rdb_last_bgsave_status") == "err",
            what=lambda: f"a snapshot fails:\n{server.log}",
        )
        with pytest.raises(LogUnavailable, match="disk"):
            log.append(some(1))
        assert len(everything(log)) == 1
        server.ask("CONFIG", "SET", "save", "")
        assert log.append(some(1)).first == 2


def test_a_replica_can_be_followed_but_not_published_to(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer() as primary, RedisServer(*replica_of(primary)) as replica:
        with opened(primary.url(prefix="both")) as [log]:
            log.append(some(3))
            wait_for(lambda: replica.ask("EXISTS", "{both}:log"), what="the replica has it")
            with opened(replica.url(prefix="both")) as [follower]:
                assert "replica" in caplog.text
                assert len(everything(follower)) == 3
                with pytest.raises(LogUnavailable, match="replica"):
                    follower.append(some(1))
                log.append(some(1))
                wait_for(lambda: follower.read(3, 10), what="the replica shows what is new")
        refused(replica.url(), "open", LogUnavailable)


@pytest.mark.skipif(
    PROGRAM is not None and RedisServer.version() < (7, 0),
    reason="servers before 7.0 let scripts write all the same; the cure: Redis 7.0",
)
def test_too_few_replicas_are_told() -> None:
    with RedisServer("--min-replicas-to-write", "1") as server:
        assert "min-replicas-to-write" in refused(server.url(), "append", LogUnavailable)


def test_a_server_busy_with_a_script_is_away_until_it_is_done(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "lua-time-limit", "20")
    with opened(server.url()) as [log]:
        log.append(some(1))

        def keep_busy() -> None:
            import redis

            with pytest.raises(redis.exceptions.ResponseError):  # it was killed
                server.ask("EVAL", "while true do end", "0")

        thread = threading.Thread(target=keep_busy)
        thread.start()
        try:

            def is_told() -> bool:
                try:
                    log.append([])
                except LogUnavailable as error:
                    return "script" in str(error)
                return False

            wait_for(is_told, what="the server is busy")
            with pytest.raises(LogUnavailable, match="script"):
                log.append(some(1))
        finally:
            server.ask("SCRIPT", "KILL")
            thread.join()
        assert log.append(some(1)).first == 2


def test_a_server_that_reads_its_data_is_away_until_it_has() -> None:
    with RedisServer("--rdbcompression", "no") as server:
        url = server.url()
        with opened(url) as [log]:
            log.append(some(3))
            for number in range(100):
                server.ask("SET", f"key{number}", "x" * 200_000)
            server.ask("SAVE")
            server.kill()
            # Now and then, while it reads, it answers that it does.
            thread = threading.Thread(target=server.start, args=["--key-load-delay", "20000"])
            thread.start()
            said: list[str] = []

            def is_back() -> bool:
                try:
                    log.append(some(1))
                except LogUnavailable as error:
                    said.append(str(error))
                    return False
                return True

            wait_for(is_back, what=lambda: f"it is back; till then: {said[-1:]}")
            thread.join()
            assert [text for text in said if "reading its data" in text]
            assert [record.seq for record in everything(log)] == [1, 2, 3, 4]
