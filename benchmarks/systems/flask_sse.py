"""flask-sse: gunicorn with gevent, as its documentation tells, and a Redis of its own for the measurement.

Each client holds a greenlet and a connection to Redis. The head of a stream leaves with its first event.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.systems.install import debian_packages, python_packages
from benchmarks.systems.system import Running, System, Versions, serve
from tests.support.ports import free_port
from tests.support.processes import Server

APP = Path(__file__).parent / "apps" / "flask_sse_app.py"
REQUIREMENTS = (
    "flask-sse==1.0.0",
    "Flask==3.1.3",
    "gunicorn==27.0.1",
    "packaging==26.3",  # which gunicorn asks for only with gevent
    "gevent==26.9.0",
    "redis==8.1.0",
)


def _install() -> Versions:
    _, versions = python_packages("flask-sse", *REQUIREMENTS)
    return {**versions, **debian_packages(["redis-server"], "redis-server")}


@contextmanager
def _start(port: int, folder: Path) -> Iterator[Running]:
    python, _ = python_packages("flask-sse", *REQUIREMENTS)
    redis_port = free_port()
    redis = ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder)]
    redis += ["--save", "", "--appendonly", "no", "--maxclients", "19000", "--tcp-backlog", "4096"]
    command = [
        str(python),
        "-m",
        "gunicorn",
        f"--bind=127.0.0.1:{port}",
        "--worker-class=gevent",
        "--workers=1",
    ]
    command += ["--worker-connections=19000", "--backlog=4096", "--keep-alive=3600", "--timeout=600"]
    command += ["--no-control-socket", f"--chdir={APP.parent}", f"{APP.stem}:app"]
    env = {"REDIS_URL": f"redis://127.0.0.1:{redis_port}"}
    with (
        Server(redis, folder, port=redis_port) as beside,
        serve(command, folder, port=port, env=env, beside={"redis": beside}) as running,
    ):
        yield running


SYSTEM = System(
    "flask-sse",
    "on gunicorn with gevent, Redis beside it: no replay, no bytes before the first event",
    rate=12_000,
    install=_install,
    start=_start,
    late=True,
)
