"""What a declaration module declares, read from its source without running it.

`hud --help` takes a plugin's commands from here, and a broken plugin's names are known by it. Only calls such as
`CommandKind(name="deploy", summary="...", target="...")` with plain strings are seen; anything else is found
when the module is imported.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from hud.plugins.discovery import EntryPoint, discover

if TYPE_CHECKING:
    from hud.plugins.kinds import Declaration
    from hud.plugins.plugin import Plugin
    from hud.plugins.policy import PluginPolicy


def command_lines(policy: PluginPolicy) -> list[tuple[str, str, str]]:
    """Return (name, help line, distribution) of every plugin's command, sorted, importing no plugin."""
    found: list[tuple[str, str, str]] = []
    for point in discover().entry_points:
        if policy.refusal(point.name, point.dist.name) is None:
            found += [
                (fields["name"], fields.get("summary", ""), point.dist.name)
                for fields in _calls(point, "CommandKind")
                if "name" in fields
            ]
    return sorted(found)


def declared_names(plugin: Plugin, kind: type[Declaration]) -> set[str]:
    """Return the names of `kind` that a plugin's source shows, also where it cannot be imported."""
    if plugin.entry_point is None:
        return set()
    return {fields["name"] for fields in _calls(plugin.entry_point, kind.__name__) if "name" in fields}


def _calls(point: EntryPoint, callee: str) -> list[dict[str, str]]:
    path = _source(point.module)
    if path is None:
        return []
    try:
        with open(path, "rb") as file:
            text = file.read()
        if callee.encode() not in text:
            return []
        import ast

        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return []
    found: list[dict[str, str]] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == callee:
            found.append(
                {
                    word.arg: word.value.value
                    for word in node.keywords
                    if word.arg and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)
                }
            )
    return found


def _source(module: str) -> str | None:
    """Find a module's file as the path would, without importing its packages."""
    relative = module.replace(".", os.sep)
    for entry in sys.path:
        for candidate in (f"{relative}.py", os.path.join(relative, "__init__.py")):
            path = os.path.join(entry or ".", candidate)
            if os.path.isfile(path):
                return path
    return None
