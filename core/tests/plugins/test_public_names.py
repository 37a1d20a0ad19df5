"""The public packages: what they list, what type checkers see, and that every name is there."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

from hud.plugins.first_party import FIRST_PARTY

LAZY = ["hud", "hud.eval", "hud.environment", "hud.agents", "hud.graders", "hud.capabilities", "hud.plugins"]


@pytest.mark.parametrize("module", LAZY)
def test_every_core_name_is_an_import_for_type_checkers_too(module: str) -> None:
    spec = sys.modules.get(module) or __import__(module, fromlist=["_"])
    assert spec.__file__ is not None
    tree = ast.parse(Path(spec.__file__).read_text(encoding="utf-8"))
    checked = {
        alias.asname: f"{node.module}:{alias.name}"
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in ast.walk(branch)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    core: dict[str, str] = dict(spec._CORE)
    if module == "hud.agents":
        assert core.pop("MCPAgent") == core["ToolAgent"]  # an alias, which checkers see as one
    assert {name: target for name, target in checked.items() if name in core} == core
    assert set(checked) - set(core) == set(FIRST_PARTY.get(module, {}))
    assert spec.__all__ == sorted(spec._CORE)


@pytest.mark.parametrize("module", LAZY)
def test_every_core_name_resolves(module: str) -> None:
    package = __import__(module, fromlist=["_"])
    for name, target in package._CORE.items():
        assert getattr(package, name) is not None, target
    with pytest.raises(AttributeError, match="has no attribute 'Environmentt'"):
        _ = package.Environmentt


def test_star_imports_touch_no_plugin(site: Any) -> None:
    done = site.run(
        "from hud.eval import *; from hud.environment import *; print(Taskset.__name__, Environment.__name__)"
    )
    assert done.stdout == "Taskset Environment\n", done.stderr
