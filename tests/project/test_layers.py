"""The layers of the package: which module may import which, and no import circles.

``layers.py`` reads the imports.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from layers import LAYERS, PACKAGE, Import, below, circles, read, room

MODULES = read()

ENGINE = ["engine", "acceptor", "guard", "dispatch", "connection", "exchange", "context"]
"""The rooms of the engine from the top down. Each imports only from those behind it."""

GROUND = {"spool", "waitress_parts"}
"""Rooms of the engine from which all others may import."""

FOREIGN = {
    "waitress": {"engine"},
    "flask": {"apps", "service", "launcher", "extension", "cli"},
    "click": {"apps", "service", "launcher", "extension", "cli"},
    "werkzeug": {"apps", "wsgi", "service", "launcher", "extension", "cli"},
}
"""The rooms that may import these."""

STANDARD = {"__future__", "collections", "importlib", "os", "sys", "traceback", "typing"}


def mistakes() -> Iterator[str]:
    """Describe each import that the layers, or FOREIGN, do not allow."""
    for module, imports in MODULES.items():
        own = room(module)
        # The package itself passes names of these on when they are used.
        allowed = {"extension", "version"} if module == PACKAGE.name else below(own)
        for target in {one.target for one in imports if not one.typing}:
            top = target.split(".")[0]
            if top == PACKAGE.name and room(target) not in {own, *allowed}:
                yield f"{module} imports {target}"
            if own not in FOREIGN.get(top, {own}):
                yield f"{module} imports {top}"


def test_imports_run_down_the_layers() -> None:
    """Rooms import from lower layers only; only the engine knows waitress, and only upper ones Flask."""
    assert set().union(*LAYERS) == {room(module) for module in MODULES}
    assert list(mistakes()) == []
    # Each flask command imports the module behind the entry point, so it has nothing else to import before it is used.
    at_start = [one.target for one in MODULES["flask_prodserve.cli.serve"] if not one.inside and not one.typing]
    assert {target.split(".")[0] for target in at_start} - STANDARD == {"click", "flask"}
    # No file is a drawer for everything.
    names = {module.rpartition(".")[2] for module in MODULES}
    assert not names & {"utils", "util", "helpers", "common", "misc", "manager"}


def test_imports_of_the_engine_run_one_way() -> None:
    """Inside the engine, imports run down ENGINE, those under TYPE_CHECKING included, and one file imports waitress."""
    inside = {name: imports for name, imports in MODULES.items() if name.startswith("flask_prodserve.engine.")}
    rooms = {name: name.split(".")[2] for name in inside}
    assert set(rooms.values()) == {*ENGINE, *GROUND}
    for module, imports in inside.items():
        own = rooms[module]
        allowed = {own, *GROUND, *(ENGINE[ENGINE.index(own) + 1 :] if own in ENGINE else ())}
        used = {rooms[one.target] for one in imports if one.target in rooms}
        assert used <= allowed, f"{module} imports from {sorted(used - allowed)}"
        assert own == "waitress_parts" or not any(one.target.split(".")[0] == "waitress" for one in imports)


def test_only_apps_and_above_read_flask_apps() -> None:
    """No module below apps uses an attribute that only a Flask app has."""
    of_flask = {"url_map", "view_functions", "blueprints", "static_folder", "before_request_funcs", "extensions"}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in below("apps"):
            used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
            assert not used & of_flask, path


def test_no_import_circle() -> None:
    """No module imports itself through others, functions and TYPE_CHECKING included."""
    # The search works: it finds the circle of an example, and no more.
    example = {"a": ["b"], "b": ["c", "json"], "c": ["b", "d"], "d": ["e"], "e": []}
    imports = {
        name: [Import(target, typing=False, inside=False) for target in targets] for name, targets in example.items()
    }
    assert circles(imports) == [{"b", "c"}]
    assert circles(MODULES) == []
