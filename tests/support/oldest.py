"""The oldest releases that are supported of what a door leans on, each in a folder of its own.

``scripts/test`` installs them; ``pyproject.toml`` says which they are. A process whose ``PYTHONPATH``
begins with the folder runs them.
"""

from __future__ import annotations

import os
import tomllib

import pytest

from tests.support.processes import ROOT

PACKAGES = ("gunicorn", "uvicorn")
_FOLDER = ROOT / ".oldest"


def oldest(package: str) -> str:
    """Its release, as the extra of the same name has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = project["optional-dependencies"][package]
    release = str(wanted).removeprefix(f"{package}>=")
    return release if release.count(".") == 2 else f"{release}.0"


def with_oldest(package: str) -> dict[str, str]:
    """The environment of a process that runs it."""
    return {"PYTHONPATH": os.pathsep.join([str(_FOLDER / package), str(ROOT)])}


def need_oldest(package: str) -> pytest.MarkDecorator:
    release = oldest(package)
    return pytest.mark.skipif(
        not (_FOLDER / package / f"{package}-{release}.dist-info").is_dir(),
        reason=f"these tests need {package} {release} in .oldest/{package}; the cure: scripts/test",
    )


def oldest_uvicorn() -> str:
    return oldest("uvicorn")


def with_oldest_uvicorn() -> dict[str, str]:
    return with_oldest("uvicorn")


need_oldest_uvicorn = need_oldest("uvicorn")


if __name__ == "__main__":
    for name in PACKAGES:
        print(name, oldest(name))
