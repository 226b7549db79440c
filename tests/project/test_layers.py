"""The house: who may import whom (docs/explanation, and the design that it comes from). Only what runs counts, not TYPE_CHECKING."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flask_prodserve"
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS = [
    {"", "errors", "clock", "units"},  # "": the package itself, which has the version
    {"settings"},
    {"wsgi", "protocol", "net", "observe"},
    {"engine", "process"},
    {"apps"},
    {"service"},
    {"launcher"},
    {"extension"},
    {"cli"},
]
"""The rooms (folders and modules of the package), from the ground up. A room knows those below, not those beside it."""


def _below(room: str) -> set[str]:
    floor = next(number for number, rooms in enumerate(FLOORS) if room in rooms)
    return set().union(*FLOORS[:floor])


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    package = _name(path) if path.name == "__init__.py" else _name(path).rpartition(".")[0]

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                continue
            if top_level_only and isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = ".".join(package.split(".")[: len(package.split(".")) - child.level + 1]) if child.level else ""
                source = ".".join(filter(None, [base, child.module]))
                for alias in child.names:
                    inner = ROOT / source.replace(".", "/") / alias.name
                    yield f"{source}.{alias.name}" if inner.is_dir() or inner.with_suffix(".py").is_file() else source
            else:
                yield from walk(child)

    return walk(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_imports_only_from_below(path: Path) -> None:
    """Imports run one way, down the house; within a room they are free."""
    room = _room(_name(path))
    for imported in _imports(path):
        if imported.split(".")[0] == "flask_prodserve" and _room(imported) != room:
            if _name(path) == "flask_prodserve":
                assert _room(imported) == "extension"  # the names that it passes on when they are used
            else:
                assert _room(imported) in _below(room), f"{_name(path)} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_who_imports_whom_outside(path: Path) -> None:
    """Only the engine knows waitress; below service only those who load apps know Flask, and only the WSGI wrappers know Werkzeug."""
    foreign = {imported.split(".")[0] for imported in _imports(path)}
    room = _room(_name(path))
    assert "waitress" not in foreign or room == "engine"
    assert not foreign & {"flask", "click"} or room in ("apps", "service", "launcher", "extension", "cli")
    assert "werkzeug" not in foreign or room in ("service", "launcher", "extension", "cli", "wsgi")


def test_entry_point_imports_click_and_flask_only() -> None:
    """The module behind the entry point has nothing else to import before the command is used."""
    standard = {"__future__", "collections", "importlib", "os", "sys", "traceback", "typing"}
    foreign = {name.split(".")[0] for name in _imports(PACKAGE / "cli/serve.py", top_level_only=True)}
    assert foreign - standard == {"click", "flask"}


def test_file_names_say_something() -> None:
    """No file is a drawer for everything."""
    assert not {path.stem for path in MODULES} & {"utils", "util", "helpers", "common", "misc", "manager"}
