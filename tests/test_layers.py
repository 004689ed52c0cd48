"""The rooms of the package and who may import whom: the table of the design, checked by walking the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "rnnpipe"

# room: the rooms it may import at module level or inside a function. `errors` and `durable` are for everyone.
MAY_IMPORT = {
    "errors": set(),
    "durable": set(),
    "hookspecs": set(),
    "builtin": {"hookspecs"},
    "options": set(),
    "text": set(),
    "config": {"options", "text"},
    "plugins": {"builtin", "hookspecs", "options"},
    "data": {"text"},
    "vectors": {"data", "text"},
    "cells": set(),
    "backends": {"cells"},
    # `models/recurrent.py` looks cells up by name for people who write `Recurrent("lstm", ...)` in their own code.
    "models": {"backends", "cells", "options", "plugins"},
    "runtime": set(),
    "training": {"config", "data", "models", "runtime"},
    "generation": {"backends", "models", "runtime", "text"},
    "exported": {"generation", "options", "text"},
    "export": {"backends", "exported", "generation", "models", "text"},
    "serving": {"generation", "pipeline", "text"},
    "experiments": set(),
    "scaffold": set(),
    "plots": set(),
    "pipeline": {
        "backends", "cells", "config", "data", "export", "exported", "generation", "models", "options", "plugins",
        "runtime", "text", "training", "vectors",
    },
    "bench": {
        "backends", "cells", "config", "data", "generation", "models", "pipeline", "plugins", "runtime", "text",
        "training", "vectors",
    },
    "testing": {
        "backends", "cells", "config", "data", "generation", "models", "options", "pipeline", "plugins", "runtime",
        "text", "training",
    },
    "cli": {
        "bench", "config", "data", "exported", "generation", "models", "options", "pipeline", "plots", "plugins",
        "runtime", "scaffold", "serving", "testing", "text", "training", "vectors",
    },
}  # fmt: skip
EVERYONE = {"errors", "durable"}
NO_TORCH = {
    "errors",
    "durable",
    "hookspecs",
    "builtin",
    "options",
    "text",
    "config",
    "plugins",
    "exported",
    "experiments",
    "plots",
    "scaffold",
}


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if room(p) not in ("__init__", "__main__"))


def imports(path: Path, *, module_level: bool) -> set[str]:
    """Return the full names of the modules that a file imports, those under TYPE_CHECKING left out."""
    tree = ast.parse(path.read_text())
    found = set()

    def visit(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import) and (top or not module_level):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and (top or not module_level):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, top and not inside)

    visit(tree, True)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = room(path)
    assert own in MAY_IMPORT, f"a new room '{own}': give it a row in the table"
    for name in imports(path, module_level=False):
        parts = name.split(".")
        if parts[0] != "rnnpipe" or len(parts) < 2:
            continue
        target = parts[1]
        if target == own or target in EVERYONE or target == "__version__":
            continue
        assert target in MAY_IMPORT[own], f"{path.name} imports {name}: '{own}' may not import '{target}'"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_without_torch(path: Path) -> None:
    names = {name.split(".")[0] for name in imports(path, module_level=True)}
    if room(path) in NO_TORCH:
        assert "torch" not in {name.split(".")[0] for name in imports(path, module_level=room(path) == "plots")}
    if room(path) == "cli" and path.name != "progress.py":
        assert not names & {"torch", "numpy", "tqdm"}, "commands import these inside functions"


def test_no_pickle_eval_or_exec() -> None:
    for path in modules():
        tree = ast.parse(path.read_text())
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        called = {function.id for function in calls if isinstance(function, ast.Name)}
        assert not called & {"eval", "exec", "compile"}, path
        assert not {name.split(".")[0] for name in imports(path, module_level=False)} & {"pickle", "marshal", "shelve"}
        loads = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "load"]
        for node in loads:
            assert ast.unparse(node) not in ("torch.load", "pickle.load"), path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                assert any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords), path
