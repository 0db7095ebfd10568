"""What some tests need of the machine. Where it is missing they are skipped by name, with the cure.

@need_node
def test_the_npm_client_gets_what_it_missed() -> None: ...
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parent.parent / "clients"  # of npm; ``scripts/test`` installs them


def _has(*programs: str) -> bool:
    return all(shutil.which(program) for program in programs)


def _has_node() -> bool:
    if not _has("node"):
        return False
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return int(version.stdout.strip().removeprefix("v").split(".")[0]) >= 18


def _may_make_networks() -> bool:
    if not _has("unshare", "nsenter", "ip"):
        return False
    trial = ["unshare", "--net", "ip", "link", "add", "one", "type", "veth", "peer", "name", "other"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


need_chromium = pytest.mark.skipif(
    not _has("chromium", "chromedriver"),
    reason="browser tests need chromium and chromedriver; the cure: apt-get install chromium chromium-driver",
)
need_compiler = pytest.mark.skipif(
    not _has("cc"),
    reason="tests of the load generator need a C compiler; the cure: apt-get install gcc libc6-dev",
)
need_curl = pytest.mark.skipif(
    not _has("curl"), reason="curl tests need curl; the cure: apt-get install curl"
)
need_networks = pytest.mark.skipif(
    not _may_make_networks(),
    reason="tests of clients that vanish need a network of their own; "
    "the cure: apt-get install iproute2, and run them as root",
)
need_nginx = pytest.mark.skipif(
    not _has("nginx"), reason="tests of a proxy need nginx; the cure: apt-get install nginx-light"
)
need_openssl = pytest.mark.skipif(
    not _has("openssl"), reason="tests of TLS need openssl; the cure: apt-get install openssl"
)
need_node = pytest.mark.skipif(
    not _has_node() or not (CLIENTS / "node_modules" / "eventsource").is_dir(),
    reason="npm client tests need Node.js 18 or newer and the packages of tests/clients; "
    "the cure: apt-get install nodejs npm, then scripts/test",
)


def need_descriptors(count: int) -> pytest.MarkDecorator:
    """That the test, and a server that it starts, may have so many descriptors each."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
        soft = count
    return pytest.mark.skipif(
        soft < count,
        reason=f"tests of many streams need {count} descriptors; the cure: ulimit -n {count}",
    )
