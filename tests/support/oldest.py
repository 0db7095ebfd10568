"""The oldest releases that are supported of what doors and faces lean on, each in a folder of its own.

``scripts/test`` installs them; ``pyproject.toml`` says which they are. A process whose ``PYTHONPATH``
begins with the folder runs them.
"""

from __future__ import annotations

import os
import tomllib

import pytest

from tests.support.processes import ROOT

PACKAGES = ("gunicorn", "uvicorn", "flask", "django", "starlette", "fastapi", "quart")
_FOLDER = ROOT / ".oldest"


def oldest(package: str) -> str:
    """Its release, as the extra of the same name has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (one for one in project["optional-dependencies"][package] if one.startswith(f"{package}>="))
    release = str(wanted).removeprefix(f"{package}>=")
    return release if release.count(".") == 2 else f"{release}.0"


def with_oldest(*packages: str) -> dict[str, str]:
    """The environment of a process that runs them."""
    folders = [str(_FOLDER / package) for package in packages]
    return {"PYTHONPATH": os.pathsep.join([*folders, str(ROOT)])}


def need_oldest(*packages: str) -> pytest.MarkDecorator:
    missing = [f"{package} {oldest(package)}" for package in packages if not _is_there(package)]
    return pytest.mark.skipif(
        bool(missing),
        reason=f"these tests need {' and '.join(missing)} in .oldest; the cure: scripts/test",
    )


def _is_there(package: str) -> bool:
    """Whether ``scripts/test`` has installed it."""
    stamp = _FOLDER / package / ".release"
    return stamp.is_file() and stamp.read_text().strip() == oldest(package)


def oldest_uvicorn() -> str:
    return oldest("uvicorn")


def with_oldest_uvicorn() -> dict[str, str]:
    return with_oldest("uvicorn")


need_oldest_uvicorn = need_oldest("uvicorn")


if __name__ == "__main__":
    for name in PACKAGES:
        print(name, oldest(name))
