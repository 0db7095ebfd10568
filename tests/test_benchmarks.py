"""The benchmarks run, and print tables. What is in them depends on the machine, and is nobody's promise."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.__main__ import MEASUREMENTS
from benchmarks.load import LoadFailed, generate
from benchmarks.systems import SYSTEMS
from tests.support.nats import need_nats
from tests.support.needs import need_compiler
from tests.support.ports import free_port
from tests.support.postgres import need_postgres
from tests.support.processes import ROOT, environment
from tests.support.redis import need_redis

OF_SERVERS = {"logs", "recovery"}


def bench(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments, "--folder", str(folder)]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[need_redis, need_postgres, need_nats] if name in ("logs", "recovery") else []
        )
        for name in MEASUREMENTS
    ],
)
def test_a_quick_run_prints_tables_whose_rows_have_all_columns(name: str, tmp_path: Path) -> None:
    done = bench("--quick", name, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    facts, *tables = done.stdout.split("\n### ")
    assert [fact.partition(": ")[0] for fact in facts.split("\n") if fact][:2] == ["- Python", "- SQLite"]
    assert tables
    for table in tables:
        header, rule, *rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("|")]
        assert len(rows) > 1
        assert {len(cells) for cells in (header, rule, *rows)} == {len(header)}
        assert all(float(cell.replace(",", "")) < 1e12 for row in rows for cell in row[1:] if cell.strip())
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_json_has_the_same_figures_with_all_digits(tmp_path: Path) -> None:
    done = bench("--quick", "--json", "memory", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["machine"]["Python"]
    (table,) = found["measurements"]["memory"]
    assert len({tuple(row) for row in table["rows"]}) == 1
    assert all(isinstance(row["KB per stream"], float) for row in table["rows"])


def test_a_name_that_is_none_is_refused_with_those_that_are(tmp_path: Path) -> None:
    done = bench("speed", folder=tmp_path)
    assert done.returncode == 2
    assert "speed" in done.stderr
    assert all(name in done.stderr for name in MEASUREMENTS)


@need_compiler
def test_the_generator_counts_every_delivery_of_a_server_that_loses_none(tmp_path: Path) -> None:
    with SYSTEMS["bare-c"].start(free_port(), tmp_path) as running:
        server = running.servers["server"]
        account = generate(running.port, streams=20, events=50, quiet_s=20, groups={"server": [server.pid]})
    assert (account["opened"], account["subscribed"], account["answered"]) == (20, 20, 50)
    assert (account["deliveries"], account["lost"], account["ended"]) == (1_000, 0, "complete")
    assert not any(account[fault] for fault in ("doubled", "out_of_order", "damaged", "strange"))
    assert 0 < account["latency_ms"]["p50"] <= account["latency_ms"]["p99"] <= account["latency_ms"]["max"]
    assert account["groups"]["server"]["pss_with_kb"] > 0


class FaultyServer(ThreadingHTTPServer):
    """A server that does wrong by its first stream, in each way that the generator shall notice.

    All that is allowed it does as well: JSON around the data, CRLF, other fields and blocks, chunks of a few
    bytes.
    """

    daemon_threads = True
    dropped, doubled, late, cut = 2, 4, 6, 9  # the numbers of events

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_port()), _FaultyHandler)
        self.streams: list[_FaultyHandler] = []
        self.held = b""
        self.stopped = threading.Event()
        self.mutex = threading.Lock()

    def publish(self, payload: bytes) -> None:
        number = int(payload[1:11]) if payload.startswith(b"#") else -1  # others are probes
        with self.mutex:
            first, *others = self.streams
            for stream in others:
                stream.send(payload)
            if number == self.late:
                self.held = payload
                return
            if number != self.dropped:
                first.send(payload[:90] if number == self.cut else payload)
            if number == self.doubled:
                first.send(payload)
            if self.held:
                first.send(self.held)
                self.held = b""


class _FaultyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the generator ends by resetting its connections
            super().handle()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "Chunked")
        self.end_headers()
        with self.server.mutex:
            self.server.streams.append(self)
        self.server.stopped.wait()

    def do_POST(self) -> None:
        self.server.publish(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def send(self, payload: bytes) -> None:
        data = json.dumps({"text": payload.decode()}).encode()
        block = b": hello\r\n\r\nid: 7\r\ndata: " + data + b"\r\n\r\n"
        size = 1 + payload[10] % 7  # by the last digit of the event's number
        pieces = [block[at : at + size] for at in range(0, len(block), size)]
        self.wfile.write(b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def faulty_server() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.stopped.set()
        server.shutdown()
        thread.join()


@need_compiler
def test_the_generator_tells_what_a_server_loses_doubles_delays_and_cuts(faulty_server: FaultyServer) -> None:
    account = generate(faulty_server.server_port, streams=3, events=12, payload=100)
    assert account["deliveries"] == 3 * 12 - 1
    found = {fault: account[fault] for fault in ("lost", "doubled", "out_of_order", "damaged", "strange")}
    assert found == {"lost": 1, "doubled": 1, "out_of_order": 1, "damaged": 1, "strange": 0}
    assert account["ended"] == "quiet", "it waits for what might still come"


@need_compiler
def test_the_generator_ends_with_an_error_where_nobody_listens() -> None:
    with pytest.raises(LoadFailed, match="no stream could be opened"):
        generate(free_port(), streams=3, events=1)


@need_compiler
def test_a_quick_fan_out_has_a_row_for_each_system_and_a_chart(tmp_path: Path) -> None:
    systems = ["bare-c", "penstock-gunicorn"]
    kept, chart = tmp_path / "kept.json", tmp_path / "chart.svg"
    files = [f"--json={kept}", f"--chart={chart}"]
    done = bench("fanout", "--quick", f"--systems={','.join(systems)}", *files, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0].strip() for row in rows[2:]] == systems
    assert len({len(row) for row in rows}) == 1
    accounts = [outcome["account"] for outcome in json.loads(kept.read_text())["matrix"]]
    assert [(account["lost"], account["deliveries"]) for account in accounts] == [(0, 4_000)] * 2
    drawn = {text.text for text in ET.parse(chart).iter("{http://www.w3.org/2000/svg}text")}
    assert set(systems) < drawn
