"""The servers of the table of faces: one for each cell, started by the first test of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.doors.servers import ALL, Make, Servers
from tests.faces.facts import ENV
from tests.support.processes import Server


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    cells: dict[str, Make] = request.module.CELLS
    servers = Servers(cells, ENV, lambda name: tmp_path_factory.mktemp(name.replace(" ", "-")))
    yield servers
    servers.close()


@pytest.fixture
def server(cell: str, servers: Servers) -> Server:
    return servers[cell]


@pytest.fixture
def stopping(server: Server) -> Server:
    return server


@pytest.fixture
def told(cell: str) -> bool:
    """Whether the streams of the cell's server are told when it is asked to stop; else they are cut."""
    return ALL[cell.rpartition(" ")[2]].told


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        marks = getattr(metafunc.module, "MARKS", {})
        cells = [pytest.param(cell, marks=marks.get(cell, ())) for cell in metafunc.module.CELLS]
        metafunc.parametrize("cell", cells, scope="module")
