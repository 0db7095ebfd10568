"""Arrows point down only: faces → doors → engine → log → core. Read from the imports, wherever they stand."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import penstock

ROOT = Path(penstock.__file__).parent

# Each layer may import itself and these, all of which stand above it in this table.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "threads": set(),
    "loops": {"threads"},
    "greenlets": {"threads"},
    "core": {"errors"},
    "log": {"core", "loops", "threads", "errors"},
    "options": {"log", "core", "errors"},
    "engine": {"options", "log", "core", "greenlets", "loops", "threads", "errors"},
    "doors": {"engine", "options", "log", "core", "greenlets", "threads", "errors"},
    "bus": {"engine", "options", "log", "core", "greenlets", "threads", "errors"},
    "faces": {"doors", "bus", "engine", "options", "log", "core", "greenlets", "threads", "errors"},
}
# What is no layer by its own name.
LAYER_OF = {
    "subscriber": "bus",
    "__init__": "faces",
    "__main__": "faces",
    "cli": "faces",
    "asgi_response": "faces",
    "endpoint": "faces",
    "extension": "faces",
    "starlette": "faces",
    "fastapi": "faces",
    "quart": "faces",
    "django": "faces",
    "flask": "faces",
    "testing": "faces",
}
FOLDERS = ["core", "doors", "engine", "log"]

# Nothing of these can read a clock, throw dice, start a thread, log, or touch the world.
PURE = {
    "codecs", "collections", "dataclasses", "enum", "functools", "json", "math", "re", "reprlib", "typing",
}  # fmt: skip

# What is not of the standard library, and SQLite, which some Pythons are built without.
DRIVERS = {
    "flask": {"flask"},
    "starlette": {"starlette"},
    "fastapi": {"fastapi", "starlette", "pydantic"},
    "quart": {"quart"},
    "django": {"django", "asgiref"},
    "cli": {"click"},
    "log.nats": {"nats", "nkeys"},
    "log.postgres": {"psycopg"},
    "log.redis": {"redis"},
    "log.sqlite": {"sqlite3"},
    "doors.gevent": {"gevent", "gunicorn"},
    "doors.gunicorn": {"gunicorn"},
    "greenlets": {"gevent"},
    "doors.uvicorn": {"uvicorn"},
    "testing.pytest_plugin": {"pytest"},
}


class Import(NamedTuple):
    """One import statement of a module of ours."""

    module: str  # without "penstock."
    target: str  # of ours without "penstock.", of others whole
    ours: bool
    for_types_only: bool

    def __str__(self) -> str:
        return f"{self.module} imports {self.target}"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def layer_of(module: str) -> str:
    top = module.split(".")[0]
    layer = LAYER_OF.get(top, top)
    assert layer in ALLOWED, f"which layer is {module!r} of? Say it in the tables of this test"
    return layer


def _of_package(name: str) -> str:
    """``from penstock import errors`` imports a module, ``from penstock import Event`` the face."""
    is_module = (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()
    return f"penstock.{name if is_module else '__init__'}"


def imports_of(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text("utf-8"))
    type_checks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    for_types = {inner for check in type_checks for node in check.body for inner in ast.walk(node)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            assert node.module is not None
            names = [node.module]
            if node.module == "penstock":
                names = [_of_package(alias.name) for alias in node.names]
        for name in names:
            ours = name.split(".")[0] == "penstock"
            target = name.removeprefix("penstock.") if ours else name
            yield Import(name_of(path), target, ours, node in for_types)


ALL = [found for path in sorted(ROOT.rglob("*.py")) for found in imports_of(path)]


def test_the_imports_were_found() -> None:
    found = {(one.module, one.target) for one in ALL}
    assert ("engine.engine", "engine.ring") in found
    assert ("core.wire", "core.position") in found
    assert ("cli", "cli.commands") in found, "those within functions too"
    assert ("log.sqlite.log", "sqlite3") in found


def test_the_table_has_no_way_up() -> None:
    above: set[str] = set()
    for layer, may in ALLOWED.items():
        assert may <= above, f"{layer} may import only what stands above it in the table"
        above.add(layer)


def test_every_arrow_points_down() -> None:
    upward = [
        str(one)
        for one in ALL
        if one.ours
        and not one.for_types_only
        and layer_of(one.target) not in {layer_of(one.module), *ALLOWED[layer_of(one.module)]}
    ]
    assert upward == []


def test_what_is_imported_for_types_alone_may_point_elsewhere_but_is_known() -> None:
    upward = [
        (one.module, one.target)
        for one in ALL
        if one.ours
        and one.for_types_only
        and layer_of(one.target) not in {layer_of(one.module), *ALLOWED[layer_of(one.module)]}
    ]
    assert upward == [("errors", "core.position")]


def test_the_core_is_pure() -> None:
    impure = [
        str(one)
        for one in ALL
        if layer_of(one.module) in ("core", "errors")
        and not one.ours
        and one.target.split(".")[0] not in PURE | {"__future__"}
    ]
    assert impure == []


def test_drivers_are_imported_by_their_own_module_alone() -> None:
    stray = [
        str(one)
        for one in ALL
        if not one.ours
        and (one.target.split(".")[0] not in sys.stdlib_module_names or one.target == "sqlite3")
        and one.target.split(".")[0]
        not in {name for owner, names in DRIVERS.items() if one.module.startswith(owner) for name in names}
    ]
    assert stray == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_layer_says_its_rule(folder: str) -> None:
    doc = importlib.import_module(f"penstock.{folder}").__doc__ or ""
    assert "The rule of this layer:" in doc
    rule = doc.split("The rule of this layer:")[1]
    named = {layer for layer in ALLOWED if f"penstock.{layer}" in rule}
    assert named <= ALLOWED[folder], "the rule allows no more than the table"
    assert named or folder == "core", "the rule says what may be imported"


def test_every_folder_of_code_is_a_layer_or_a_face() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders - set(LAYER_OF) == set(FOLDERS)
