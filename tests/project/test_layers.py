"""The layers of the package: which module may import which, and no import circles.

``layers.py`` reads the imports.
"""

from __future__ import annotations

from collections.abc import Iterator

from layers import LAYERS, PACKAGE, Import, below, circles, read, room

MODULES = read()

KNOWN_CIRCLES = [
    {
        "flask_prodserve.engine.admission",
        "flask_prodserve.engine.channel",
        "flask_prodserve.engine.connections",
        "flask_prodserve.engine.loop",
        "flask_prodserve.engine.outgoing",
        "flask_prodserve.engine.parser",
        "flask_prodserve.engine.proxied_channel",
        "flask_prodserve.engine.redirect_channel",
        "flask_prodserve.engine.reply",
        "flask_prodserve.engine.response",
        "flask_prodserve.engine.server",
        "flask_prodserve.engine.task",
        "flask_prodserve.engine.tls_channel",
    },
    {
        "flask_prodserve",
        "flask_prodserve.extension",
        "flask_prodserve.launcher",
        "flask_prodserve.process.status",
        "flask_prodserve.process.supervisor",
    },
]
"""Circles that are still to be resolved. Add no file; remove each one that is in no circle any more."""

FOREIGN = {
    "waitress": {"engine"},
    "flask": {"apps", "service", "launcher", "extension", "cli"},
    "click": {"apps", "service", "launcher", "extension", "cli"},
    "werkzeug": {"wsgi", "service", "launcher", "extension", "cli"},
}
"""The rooms that may import these."""

STANDARD = {"__future__", "collections", "importlib", "os", "sys", "traceback", "typing"}


def mistakes() -> Iterator[str]:
    """Describe each import that the layers, or FOREIGN, do not allow."""
    for module, imports in MODULES.items():
        own = room(module)
        # The package itself passes names on when they are used, all of them the extension's.
        allowed = {"extension"} if module == PACKAGE.name else below(own)
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


def test_no_import_circle() -> None:
    """No module imports itself through others, functions and TYPE_CHECKING included."""
    # The search works: it finds the circle of an example, and no more.
    example = {"a": ["b"], "b": ["c", "json"], "c": ["b", "d"], "d": ["e"], "e": []}
    imports = {
        name: [Import(target, typing=False, inside=False) for target in targets] for name, targets in example.items()
    }
    assert circles(imports) == [{"b", "c"}]
    assert sorted(map(sorted, circles(MODULES))) == sorted(map(sorted, KNOWN_CIRCLES))
