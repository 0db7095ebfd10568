"""Installing what is measured, into a cache of our own that git does not see; nothing else is touched.

Python packages get a virtual environment for each system, npm packages a folder, C sources are compiled on
the spot. Each is done once, and anew when what is asked for has changed. Programs of the system (nginx,
Redis, Node.js) are asked of Debian, where that is allowed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.systems.system import Versions
from tests.support.processes import ROOT

CACHE = ROOT / "benchmarks" / ".cache"


class NotInstalled(Exception):
    """A system that cannot be had here, and why."""


def cache() -> Path:
    """The cache's folder, which tells git itself that it is none of its business."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")
    return CACHE


def compiled(name: str, sources: Sequence[Path], *options: str) -> Path:
    """The program of these C sources."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotInstalled("there is no C compiler; the cure: apt-get install gcc libc6-dev")
    texts = [path.read_bytes() for path in sorted({*sources, *sources[0].parent.glob("*.h")})]
    program = cache() / f"{name}-{_digest(*texts, repr(options).encode())}"
    if not program.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            made = Path(folder) / name
            _run([compiler, "-O2", "-std=gnu11", "-D_GNU_SOURCE", *options, "-o", made, *sources])
            made.replace(program)  # two may compile at once
    return program


def python_packages(name: str, *requirements: str) -> tuple[Path, Versions]:
    """A Python that has these packages, each given with its version."""
    folder = cache() / name
    python = folder / "bin" / "python"
    if not _is_ready(folder, sys.version, *requirements):
        venv.create(folder, clear=True, with_pip=True)
        _run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *requirements])
        _mark_ready(folder, sys.version, *requirements)
    return python, {"Python": sys.version.split()[0]} | dict(one.split("==") for one in requirements)


def npm_packages(name: str, *packages: str) -> tuple[Path, Versions]:
    """A folder whose ``node_modules`` has these packages, and the versions."""
    debian_packages(["node", "npm"], "nodejs")
    folder = cache() / name
    node = _run(["node", "--version"]).strip()
    if not _is_ready(folder, node, *packages):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "package.json").write_text('{"private": true}')
        _run(["npm", "install", "--loglevel=error", "--no-audit", "--no-fund", *packages], folder)
        _mark_ready(folder, node, *packages)
    return folder, {"Node.js": node.removeprefix("v")} | dict(one.rsplit("@", 1) for one in packages)


def debian_packages(wanted: Sequence[str | Path], *packages: str) -> Versions:
    """See to it that these programs and files are there, and tell the versions of the packages."""
    if not _all_there(wanted):
        command = [str(ROOT / "scripts" / "debian"), *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not _all_there(wanted):
            raise NotInstalled(done.stderr.strip() or f"missing: {', '.join(map(str, wanted))}")
    if not shutil.which("dpkg-query"):
        return {}
    listed = _run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages])
    return dict(line.split() for line in listed.splitlines())


def _all_there(wanted: Sequence[str | Path]) -> bool:
    return all(path.exists() if isinstance(path, Path) else shutil.which(path) for path in wanted)


def _is_ready(folder: Path, *wanted: str) -> bool:
    stamp = folder / ".ready"
    return stamp.is_file() and stamp.read_text() == repr(wanted)


def _mark_ready(folder: Path, *wanted: str) -> None:
    (folder / ".ready").write_text(repr(wanted))


def _digest(*texts: bytes) -> str:
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:12]


def _run(command: Sequence[str | Path], folder: Path | None = None) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=True, timeout=600
        )
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, "stderr", None) or str(error)
        raise NotInstalled(f"{Path(command[0]).name} failed: {words.strip()[-400:]}") from error
    return done.stdout
