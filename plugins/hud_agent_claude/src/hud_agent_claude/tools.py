"""Tools as Claude declares them: native forms where the model has them, functions otherwise.

Sources: Anthropic documentation, "Bash tool", "Text editor tool", "Computer use tool"; the types of anthropic 2.12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hud.capability.tool import Tool, safe_name
from hud.types.messages import MCPToolCall

NATIVE = frozenset({"bash", "text_editor", "computer"})
EDITOR = "str_replace_based_edit_tool"
_OLD_COMPUTER = re.compile(
    r"claude-(sonnet-4-5|haiku-4-5|opus-4-1|opus-4-\d{8}|opus-4$|sonnet-4-\d{8}|sonnet-4$)"
)
_MIDDLE_COMPUTER = re.compile(r"claude-(opus-4-[5678]|sonnet-4-6)")
HOSTED: Mapping[str, Mapping[str, Any]] = {
    "web_search": {"type": "web_search_20250305", "name": "web_search"},
    "web_fetch": {"type": "web_fetch_20250910", "name": "web_fetch"},
    "code_execution": {"type": "code_execution_20250825", "name": "code_execution"},
}


@dataclass(slots=True)
class Declared:
    """The declarations of a request, the beta features they need, and how calls find back to our tools."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    betas: list[str] = field(default_factory=list)
    ours: dict[str, str] = field(default_factory=dict)
    theirs: dict[str, str] = field(default_factory=dict)
    toolset: str = ""
    """Our tool behind Claude's computer toolset, whose members are called by their own names."""


def natives_of(model: str) -> frozenset[str]:
    """Return the native forms of a model, by its name; none for models that are not Claude's."""
    if "claude" not in model or re.search(r"claude-(2|3|instant)", model):
        return frozenset()
    return NATIVE


def declare(
    tools: Sequence[Tool], natives: frozenset[str], model: str, hosted: Sequence[Any] = ()
) -> Declared:
    """Return the declarations of `tools` for `model`, and of the hosted tools."""
    out = Declared()
    for tool in tools:
        native = _native(tool, model, out) if tool.native in natives else None
        declaration = native or {
            "name": safe_name(tool.name),
            "description": tool.description,
            "input_schema": tool.parameters,
        }
        out.tools.append(declaration)
        name = str(declaration.get("name", ""))
        if name:
            out.ours[name] = tool.name
            out.theirs[tool.name] = name
    for item in hosted:
        out.tools.append(dict(HOSTED[item]) if isinstance(item, str) else dict(item))
    return out


def _native(tool: Tool, model: str, out: Declared) -> dict[str, Any] | None:
    if tool.native == "bash":
        return {"type": "bash_20250124", "name": "bash"}
    if tool.native == "text_editor":
        return {"type": "text_editor_20250728", "name": EDITOR}
    size = {
        "display_width_px": tool.hints.get("width", 1280),
        "display_height_px": tool.hints.get("height", 800),
    }
    if _MIDDLE_COMPUTER.search(model):
        out.betas.append("computer-use-2025-11-24")
        return {"type": "computer_20251124", "name": "computer", "enable_zoom": True, **size}
    if _OLD_COMPUTER.search(model):
        out.betas.append("computer-use-2025-01-24")
        return {"type": "computer_20250124", "name": "computer", **size}
    out.toolset = tool.name
    return {"type": "computer_toolset_20260801"}


def our_call(block: Mapping[str, Any], declared: Declared, arguments: dict[str, Any] | str) -> MCPToolCall:
    """Return a `tool_use` block as a call of our tool."""
    name = str(block["name"])
    if declared.toolset and block.get("toolset_name") == "computer" and isinstance(arguments, dict):
        ours, arguments = declared.toolset, {"action": name, **arguments}
    else:
        ours = declared.ours.get(name, name)
    return MCPToolCall(ours, arguments, str(block["id"]), provider_name=name if name != ours else None)
