"""What stands between PushWorker and its clients: proxies, TLS, HTTP/2, agents; and its oldest gunicorn."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.doors.servers import publish_beside
from tests.flask.ask import answer, events_url, publish, wait_for_streams
from tests.support.certificate import Certificate
from tests.support.client import SSEClient
from tests.support.needs import need_nginx, need_openssl
from tests.support.oldest import need_oldest, oldest, with_oldest
from tests.support.ports import free_port
from tests.support.processes import Server
from tests.support.wait import DEADLINE_S, wait_for

APP = "tests.apps.basic:app"
THREADS, PLACES = 4, 3  # where streams hold threads, one of four stays free
STREAMS = 12
ACCESS_LINE = re.compile(r'"GET /events\?channel=chat HTTP/1\.1" 200 0 ')

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
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
        }}
    }}
}}
"""


@need_nginx
def test_nginx_passes_streams_on_from_a_unix_socket(tmp_path: Path) -> None:
    """All that concerns buffers and times is as nginx has it when nobody sets it."""
    socket, port = tmp_path / "socket", free_port()
    (tmp_path / "nginx.conf").write_text(NGINX.format(port=port, socket=socket))
    proxy = ["nginx", "-e", "stderr", "-p", str(tmp_path), "-c", "nginx.conf"]
    with (
        Server.push_worker(APP, tmp_path, options=[f"--bind=unix:{socket}"]) as server,
        Server(proxy, tmp_path, port=port) as nginx,
    ):
        clients = [SSEClient(nginx.url + events_url("chat")) for _ in range(2 * THREADS)]
        for client in clients:
            client.wait_open()
        positions = publish(nginx, "chat", "1", "2")
        for client in clients:
            client.wait_for_messages(2)
            assert [message.id for message in client.messages] == positions
        assert server.process is not None
        server.process.terminate()
        for client in clients:
            client.wait_closed()
            assert not client.errors
        server.process.wait(DEADLINE_S)


@need_openssl
def test_under_tls_streams_hold_threads_and_over_http_2_they_are_slices(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    options = [f"--certfile={certificate.file}", f"--keyfile={certificate.key}", "--http-protocols=h2,h1"]
    with Server.push_worker(APP, tmp_path, threads=THREADS, options=options) as server, ExitStack() as stack:
        wait_for(lambda: "this worker ends TLS" in server.log, what="a line tells of it")
        url, trusted = f"https://127.0.0.1:{server.port}", certificate.trusted()
        client = stack.enter_context(httpx.Client(base_url=url, verify=trusted, timeout=DEADLINE_S))

        def say(data: str) -> str:
            return client.post("/publish", data={"channel": "chat", "data": data}).text

        first, second = say("1"), say("2")
        with httpx.Client(base_url=url, verify=trusted, timeout=DEADLINE_S, http2=True) as modern:
            for _ in range(2):
                whole = modern.get(events_url("chat"), headers={"Last-Event-ID": first})
                assert (whole.http_version, whole.status_code) == ("HTTP/2", 200)
                assert f"id: {second}\ndata: 2\n\nretry: " in whole.text
        assert server.log.count("Let a proxy speak HTTP/2 with browsers") == 1

        streams = [stack.enter_context(client.stream("GET", events_url("chat"))) for _ in range(PLACES)]
        lines = [stream.iter_lines() for stream in streams]
        for each in lines:
            assert next(each) == "retry: 3000"
        assert client.get("/stats").json()["streams"] == PLACES
        assert client.get(events_url("chat")).text.count("retry: ") == 2  # a slice: it begins and ends
        say("3")
        for each in lines:
            assert "data: 3" in each
        assert server.log.count("this worker ends TLS") == 1
        assert "not where it is looked for" not in server.log
        assert server.process is not None
        server.process.terminate()
        for each in lines:
            assert "retry: " in "".join(each)  # told, and not cut: that would be an error


def test_behind_what_hides_gunicorn_streams_hold_threads_and_a_line_says_so(tmp_path: Path) -> None:
    options = ["-c", "python:tests.doors.covered"]
    with Server.push_worker(APP, tmp_path, threads=THREADS, options=options) as server:
        clients = [SSEClient(server.url + events_url("chat")) for _ in range(PLACES)]
        for client in clients:
            client.wait_open()
        with answer(server, events_url("chat")) as response:
            assert response.read().count(b"retry: ") == 2  # a slice: it begins and ends
        (position,) = publish(server, "chat", "hi")
        for client in clients:
            assert [message.id for message in client.wait_for_messages(1)] == [position]
        assert server.log.count("gunicorn's response is not where it is looked for") == 1


@need_oldest("gunicorn")
def test_the_oldest_gunicorn_hands_streams_over_too(tmp_path: Path) -> None:
    options = ["--graceful-timeout=60", "--access-logfile=-"]
    env = with_oldest("gunicorn")
    server = Server.push_worker(APP, tmp_path, threads=THREADS, env=env, options=options)
    server.command.remove("--no-control-socket")  # a later release has that
    with server:
        assert f"Starting gunicorn {oldest('gunicorn')}" in server.log
        clients = [SSEClient(server.url + events_url("chat"), auto_reconnect=True) for _ in range(STREAMS)]
        for client in clients:
            client.wait_open()
        wait_for_streams(server, STREAMS)
        assert len(ACCESS_LINE.findall(server.log)) == STREAMS
        positions = publish(server, "chat", "1", "2")
        os.kill(server.pid, signal.SIGHUP)
        wait_for(lambda: all(len(client.statuses) > 1 for client in clients), what="all came back")
        positions += publish_beside(server, "chat", "3")
        for client in clients:
            client.wait_for_messages(3)
            assert [message.id for message in client.messages] == positions
            client.close()
        server.terminate()
