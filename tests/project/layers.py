"""Read the imports of the package: its layers, which room uses which, and import circles.

``python tests/project/layers.py`` prints them. ``test_layers.py`` checks them.

Every import counts for circles: those under TYPE_CHECKING and those inside functions, too. Only what runs counts for the layers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flask_prodserve"

LAYERS = [
    {"cli"},
    {"extension"},
    {"launcher"},
    {"service"},
    {"apps"},
    {"engine", "process"},
    {"wsgi", "protocol", "net", "observe"},
    {"settings"},
    {"", "errors", "clock", "units", "version"},  # "" is the package itself
]
"""The rooms (folders and modules of the package), from the top down. A room imports from the layers
below it, not from its own."""


@dataclass(frozen=True)
class Import:
    """One import of the module *target*.

    *typing*: only type checkers see it. *inside*: it stands in a function or class.
    """

    target: str
    typing: bool
    inside: bool


def room(module: str) -> str:
    """Return the room of a *module* of this package."""
    return module.split(".")[1] if "." in module else ""


def below(name: str) -> set[str]:
    """Return the rooms in the layers below the room *name*."""
    layer = next(number for number, rooms in enumerate(LAYERS) if name in rooms)
    return set().union(*LAYERS[layer + 1 :])


def read() -> dict[str, list[Import]]:
    """Return the imports of each module of the package."""
    return {_name(path): list(_imports(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def circles(modules: Mapping[str, list[Import]]) -> list[set[str]]:
    """Return the sets of modules that import each other, directly or through others.

    These are the strongly connected components with several members (Tarjan's algorithm).
    """
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for target in {one.target for one in modules[module]} & modules.keys():
            if target not in order:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], order[target])
        if lowest[module] == order[module]:
            start = stack.index(module)
            if len(stack) - start > 1:
                found.append(set(stack[start:]))
            del stack[start:]

    for module in modules:
        if module not in order:
            visit(module)
    return found


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> Iterator[Import]:
    package = _name(path) if path.name == "__init__.py" else _name(path).rpartition(".")[0]

    def walk(node: ast.AST, typing: bool, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, typing, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = ".".join(package.split(".")[: len(package.split(".")) - child.level + 1]) if child.level else ""
                source = ".".join(filter(None, [base, child.module]))
                for alias in child.names:
                    inner = ROOT / source.replace(".", "/") / alias.name
                    is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                    yield Import(f"{source}.{alias.name}" if is_module else source, typing, inside)
            elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                for statement in child.body:
                    yield from walk(ast.Module([statement], []), True, inside)
                for statement in child.orelse:
                    yield from walk(ast.Module([statement], []), typing, inside)
            else:
                yield from walk(child, typing, inside or isinstance(child, (ast.FunctionDef, ast.ClassDef)))

    return walk(ast.parse(path.read_text(encoding="utf-8")), False, False)


def _print() -> None:
    modules = read()
    for rooms in LAYERS:
        for name in sorted(rooms):
            inside = [module for module in modules if room(module) == name]
            targets = {
                room(one.target)
                for module in inside
                for one in modules[module]
                if one.target.split(".")[0] == PACKAGE.name and not one.typing
            }
            arrows = ", ".join(sorted(target or PACKAGE.name for target in targets - {name})) or "none of the package"
            print(f"{name or PACKAGE.name} ({len(inside)} files) -> {arrows}")
            if len(inside) > 1:
                print("    " + ", ".join(module.split(".", 2)[-1] for module in inside if module.count(".") > 1))
        print()
    found = circles(modules)
    for circle in found:
        print(f"circle of {len(circle)} files: " + ", ".join(sorted(circle)))
    print(f"{len(modules)} files, {len(found)} import circles")


if __name__ == "__main__":
    _print()
