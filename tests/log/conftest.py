from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, as they may not pytest's own; for tests that become another."""
    if os.geteuid() != 0:
        pytest.skip("to become another user needs root; the cure: run the tests as root")
    with tempfile.TemporaryDirectory(prefix="penstock-") as name:
        Path(name).chmod(0o777)
        yield Path(name)
