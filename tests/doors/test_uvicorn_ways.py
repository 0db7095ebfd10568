"""The ways to run uvicorn: workers, reloading, limits, a proxy, TLS, a thread, and a release yet to come."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.doors.servers import publish_beside
from tests.flask.ask import answer, events_url, get, publish, read_block, wait_for_streams
from tests.support.client import SSEClient
from tests.support.needs import need_nginx, need_openssl
from tests.support.ports import free_port
from tests.support.processes import Server
from tests.support.wait import DEADLINE_S, wait_for

APP, INSIDE = "tests.apps.asgi:app", "tests.doors.uvicorn_app:app"
FAREWELL = "event: penstock.position\ndata: \n"
TASKS = "streams are tasks of uvicorn's and are not handed over: "

NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://unix:{socket}:;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
}}
"""


def ids(client: SSEClient) -> list[str]:
    return [message.id for message in client.messages]


def is_over(server: Server) -> bool:
    assert server.process is not None
    return server.process.poll() is not None


def test_streams_of_all_workers_get_what_is_published_in_one(tmp_path: Path) -> None:
    with Server.uvicorn(APP, tmp_path, workers=2) as server, ExitStack() as stack:
        streams: dict[str, int] = {}

        def in_both() -> bool:
            client = stack.enter_context(SSEClient(server.url + events_url("chat")))
            clients.append(client.wait_open())
            with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as one_worker:
                found = []
                for path in ("/pid", "/stats"):
                    one_worker.request("GET", path)
                    found.append(one_worker.getresponse().read().decode())
            streams[found[0]] = json.loads(found[1])["streams"]
            return len(streams) == 2 and all(streams.values())

        clients: list[SSEClient] = []
        wait_for(in_both, what="each worker has a stream")
        positions = publish(server, "chat", "1", "2")
        for client in clients:
            client.wait_for_messages(2)
            assert ids(client) == positions
        server.terminate()
        for client in clients:
            client.wait_closed()
            assert client.retry_ms != 3_000  # that of the farewell
            assert not client.errors


def test_a_reload_takes_the_streams_along(tmp_path: Path) -> None:
    source = tmp_path / "touched.py"
    source.write_text("from tests.apps.asgi import app\n")
    with (
        Server.uvicorn("touched:app", tmp_path, options=["--reload"]) as server,
        SSEClient(server.url + events_url("chat"), auto_reconnect=True) as client,
    ):
        client.wait_open()
        old = get(server, "/pid")
        positions = publish_beside(server, "chat", "before")
        client.wait_for_messages(1)
        source.write_text("from tests.apps.asgi import app  # touched\n")

        def answered_by_a_new_one() -> bool:
            if "Reloading" not in server.log:
                source.touch()  # what changed before its first look goes unseen
            try:
                return get(server, "/pid") != old
            except OSError:  # it is between the two
                return False

        wait_for(answered_by_a_new_one, what="it reloads")
        positions += publish_beside(server, "chat", "after")
        client.wait_for_messages(2)
        assert ids(client) == positions
        assert not client.errors  # it was not cut


def test_a_server_that_had_its_last_request_says_farewell_to_its_streams(tmp_path: Path) -> None:
    """No signal tells it to: it stops by itself. A stream counts as the one request that it was."""
    with (
        Server.uvicorn(APP, tmp_path, options=["--limit-max-requests=10"]) as server,
        SSEClient(server.url + events_url("chat")) as client,
    ):
        client.wait_open()
        positions = publish(server, "chat", *map(str, range(8)))
        assert not is_over(server)
        positions += publish(server, "chat", "the last")
        wait_for(lambda: is_over(server), what="it stops")
        client.wait_closed()
        assert ids(client) == positions
        assert client.retry_ms != 3_000
        assert not client.errors


def statuses_of_kept_connections(server: Server) -> list[int]:
    with ExitStack() as stack:
        found = []
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
            stack.enter_context(closing(connection))
            connection.request("GET", "/ping")
            response = connection.getresponse()
            response.read()
            found.append(response.status)
        return found


def test_streams_do_not_count_among_the_connections_that_uvicorn_limits(tmp_path: Path) -> None:
    limit = ["--limit-concurrency=3"]
    with Server.uvicorn(APP, tmp_path, http="auto", options=limit) as server:
        as_before = statuses_of_kept_connections(server)
        assert as_before == [200, 200, 503]
    with Server.uvicorn(APP, tmp_path, options=limit) as server, ExitStack() as stack:
        assert statuses_of_kept_connections(server) == as_before
        for _ in range(5):
            read_block(stack.enter_context(answer(server, events_url("chat"))))
        assert statuses_of_kept_connections(server) == as_before


@need_nginx
def test_behind_nginx_with_its_defaults_streams_are_handed_over_and_clients_told_apart(
    tmp_path: Path,
) -> None:
    port, path = free_port(), tmp_path / "socket"
    user = "user root;" if os.geteuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(NGINX.format(port=port, socket=path, user=user))
    script = (
        f"nginx -p {tmp_path} -e stderr -c nginx.conf & "
        f"exec {sys.executable} -m uvicorn {INSIDE} --uds {path} --forwarded-allow-ips '*' "
        "--http penstock.doors.uvicorn:PushProtocol"
    )
    env = {"PENSTOCK_MAX_STREAMS_PER_CLIENT": "1"}
    with Server(["sh", "-c", script], tmp_path, port=port, env=env) as server, ExitStack() as stack:

        def stream_of(address: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection(
                "127.0.0.1", port, timeout=DEADLINE_S, source_address=(address, 0)
            )
            stack.enter_context(closing(connection))
            connection.request("GET", events_url("chat"))
            return stack.enter_context(connection.getresponse())

        wait_for(path.exists, what=lambda: f"uvicorn listens\n{server.log}")
        streams = [stream_of("127.0.0.1"), stream_of("127.0.0.2")]
        for stream in streams:
            assert "penstock.position" in read_block(stream)
        assert stream_of("127.0.0.1").status == 503  # this address has one already
        inside = json.loads(get(server, "/inside"))
        assert inside["uvicorn.protocols.http.httptools_impl.RequestResponseCycle"] == 1
        wait_for_streams(server, 2)
        publish(server, "chat", "hi")
        for stream in streams:
            assert "data: hi" in read_block(stream)
        assert server.process is not None
        server.process.terminate()
        for stream in streams:
            assert FAREWELL in stream.read().decode()


def test_places_of_streams_that_came_to_nothing_are_given_back(tmp_path: Path) -> None:
    env = {"PENSTOCK_MAX_STREAMS": "1", "PENSTOCK_OVERFLOW": "refuse"}
    with Server.uvicorn(INSIDE, tmp_path, env=env) as server:
        for through, status in (("forbids", 403), ("breaks", 200), ("fills up", 200)):
            with answer(server, events_url("chat", through=through)) as response:
                assert response.status == status
                with pytest.raises(http.client.IncompleteRead) if through == "breaks" else ExitStack():
                    assert response.read() == b""
        with answer(server, events_url("chat")) as response:
            assert "penstock.position" in read_block(response)
            with answer(server, events_url("chat")) as second:
                assert second.status == 503  # so that above the one place was free each time


class Certificate:
    """A certificate that nobody signed, for this machine."""

    def __init__(self, folder: Path) -> None:
        self.files = [str(folder / "certificate.pem"), str(folder / "key.pem")]
        command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", self.files[0], "-keyout", self.files[1]]
        subprocess.run(command, check=True, capture_output=True)

    @contextmanager
    def answer(self, server: Server, path: str) -> Iterator[http.client.HTTPResponse]:
        trusted = ssl.create_default_context(cafile=self.files[0])
        connection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, timeout=DEADLINE_S, context=trusted
        )
        with closing(connection):
            connection.request("GET", path)
            with connection.getresponse() as response:
                yield response


@need_openssl
@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_under_tls_streams_are_tasks_and_a_line_in_the_log_says_so(tmp_path: Path, loop: str) -> None:
    certificate = Certificate(tmp_path)
    options = [f"--ssl-certfile={certificate.files[0]}", f"--ssl-keyfile={certificate.files[1]}"]
    with Server.uvicorn(APP, tmp_path, options=[*options, f"--loop={loop}"]) as server:
        with (
            certificate.answer(server, events_url("chat")) as first,
            certificate.answer(server, events_url("chat")) as second,
        ):
            for stream in (first, second):
                assert "penstock.position" in read_block(stream)
            (position,) = publish_beside(server, "chat", "hi")
            for stream in (first, second):
                assert read_block(stream) == f"id: {position}\ndata: hi\n"
            assert server.process is not None
            server.process.terminate()
            for stream in (first, second):
                assert read_block(stream).endswith(f"id: {position}\n{FAREWELL}")
                assert stream.read() == b""
        wait_for(lambda: is_over(server), what="it stops")
        assert server.log.count(f"{TASKS}connections under TLS") == 1


@need_openssl
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_server_in_a_thread_drains_when_it_is_told_to_exit(tmp_path: Path, tls: bool) -> None:
    certificate, port = Certificate(tmp_path), free_port()
    files = certificate.files if tls else []
    command = [sys.executable, "-m", "tests.doors.uvicorn_in_thread", str(port), *files]
    with Server(command, tmp_path, port=port) as server:
        asked = certificate.answer if tls else answer
        with asked(server, events_url("chat")) as stream:
            read_block(stream)
            (position,) = publish_beside(server, "chat", "hi")
            assert "data: hi" in read_block(stream)
            assert server.process is not None
            server.process.terminate()
            assert read_block(stream).endswith(f"id: {position}\n{FAREWELL}")
            assert stream.read() == b""
        wait_for(lambda: is_over(server), what="it stops")
        assert "the thread is over" in server.log


@pytest.mark.parametrize(
    ("http_class", "missing"), [("Renamed", "limit_concurrency"), ("Wrapped", "transport")]
)
def test_where_uvicorn_is_not_as_it_was_streams_are_tasks_and_a_line_in_the_log_says_so(
    tmp_path: Path, http_class: str, missing: str
) -> None:
    with Server.uvicorn(INSIDE, tmp_path, http=f"tests.doors.uvicorn_later:{http_class}") as server:
        for _ in range(3):
            get(server, "/ping")
        with answer(server, events_url("chat")) as stream:
            assert "penstock.position" in read_block(stream)
            publish(server, "chat", "hi")
            assert "data: hi" in read_block(stream)
            server.terminate()
            assert FAREWELL in stream.read().decode()
        assert server.log.count(TASKS) == 1
        assert f"{TASKS}this release of uvicorn has no {missing}" in server.log
