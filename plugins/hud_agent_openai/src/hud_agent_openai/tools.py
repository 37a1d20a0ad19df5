"""Tools as the Responses API declares them, and calls of its native forms as calls of ours.

Sources: OpenAI documentation, "Shell", "Apply patch", "Computer use"; the types of openai 3.54.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hud.capability.tool import Tool, safe_name
from hud.types.messages import MCPToolCall

NATIVE = frozenset({"bash", "shell", "apply_patch", "computer"})
HOSTED: Mapping[str, Mapping[str, Any]] = {
    "web_search": {"type": "web_search"},
    "code_interpreter": {"type": "code_interpreter", "container": {"type": "auto"}},
    "image_generation": {"type": "image_generation"},
}
_CLICKS = {"left": "left_click", "right": "right_click", "wheel": "middle_click"}
_HISTORY = {"back": "alt+Left", "forward": "alt+Right"}
"""Buttons that our mouse lacks, as the keys that do the same."""
SCROLL_PIXELS = 100
"""Pixels of the API's scroll that one notch of our wheel stands for."""


@dataclass(slots=True)
class Declared:
    """The declarations of a request, and our tools behind the native forms."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    ours: dict[str, str] = field(default_factory=dict)
    native: dict[str, str] = field(default_factory=dict)
    """Native form (`shell`, `apply_patch`, `computer`) -> our tool."""


def natives_of(model: str) -> frozenset[str]:
    """Return the native forms of a model, by its name."""
    found = re.match(r"(?:.*/)?gpt-(\d+)(?:\.(\d+))?", model)
    if found is None:
        return frozenset()
    version = (int(found[1]), int(found[2] or 0))
    if version < (5, 1) or "chat" in model:
        return frozenset()
    known = {"bash", "shell", "apply_patch"}
    return frozenset(known | {"computer"} if version >= (5, 4) else known)


def declare(tools: Sequence[Tool], natives: frozenset[str], hosted: Sequence[Any] = ()) -> Declared:
    """Return the declarations of `tools`, and of the hosted tools."""
    out = Declared()
    for tool in tools:
        form = {"bash": "shell", "shell": "shell"}.get(tool.native or "", tool.native or "")
        if tool.native in natives and form not in out.native:
            out.native[form] = tool.name
            declaration: dict[str, Any] = {"type": form}
            if form == "shell":
                declaration["environment"] = {"type": "local"}
            out.tools.append(declaration)
            continue
        name = safe_name(tool.name)
        out.ours[name] = tool.name
        out.tools.append(
            {
                "type": "function",
                "name": name,
                "description": tool.description,
                "parameters": tool.parameters,
                "strict": False,
            }
        )
    out.tools += [dict(HOSTED[item]) if isinstance(item, str) else dict(item) for item in hosted]
    return out


def our_calls(item: Mapping[str, Any], declared: Declared) -> list[MCPToolCall]:
    """Return an output item as calls of our tools; none for an item that is no call of them.

    A batch (several commands, several actions) becomes several calls, whose ids are that of the item with `#1`, `#2`.
    """
    kind, call_id = item.get("type"), str(item.get("call_id", ""))
    if kind == "function_call":
        name = str(item["name"])
        return [MCPToolCall(declared.ours.get(name, name), item.get("arguments") or "{}", call_id)]
    if kind == "shell_call":
        action = item.get("action") or {}
        seconds = action.get("timeout_ms")
        extra = {"timeout": max(1, int(seconds) // 1000)} if seconds else {}
        return _batch(
            call_id, declared.native["shell"], [{"command": c, **extra} for c in action.get("commands") or ()]
        )
    if kind == "apply_patch_call":
        return _batch(
            call_id, declared.native["apply_patch"], [{"patch": _patch(item.get("operation") or {})}]
        )
    if kind == "computer_call":
        actions = item.get("actions") or ([item["action"]] if item.get("action") else [])
        steps = [step for action in actions for step in _computer(action)]
        # The API wants a picture of what came of it.
        if not steps or steps[-1]["action"] != "screenshot":
            steps.append({"action": "screenshot"})
        return _batch(call_id, declared.native["computer"], steps)
    return []


def _batch(call_id: str, tool: str, arguments: Sequence[dict[str, Any]]) -> list[MCPToolCall]:
    return [
        MCPToolCall(tool, given, call_id if place == 0 else f"{call_id}#{place}", provider_name="native")
        for place, given in enumerate(arguments)
    ]


def _patch(operation: Mapping[str, Any]) -> str:
    head = {"create_file": "Add", "update_file": "Update", "delete_file": "Delete"}.get(
        str(operation.get("type")), "Update"
    )
    diff = "" if head == "Delete" else str(operation.get("diff") or "").rstrip("\n") + "\n"
    return f"*** Begin Patch\n*** {head} File: {operation.get('path')}\n{diff}*** End Patch\n"


def _computer(action: Mapping[str, Any]) -> list[dict[str, Any]]:
    kind = action.get("type")
    at = {"coordinate": [action.get("x"), action.get("y")]}
    keys = {"text": "+".join(action["keys"])} if action.get("keys") else {}
    if kind == "click" and action.get("button") in _HISTORY:
        return [{"action": "key", "text": _HISTORY[str(action["button"])]}]
    if kind == "click":
        return [{"action": _CLICKS.get(str(action.get("button")), "left_click"), **at, **keys}]
    if kind == "double_click":
        return [{"action": "double_click", **at, **keys}]
    if kind == "move":
        return [{"action": "mouse_move", **at}]
    if kind == "drag":
        points = [[p["x"], p["y"]] for p in action.get("path") or ()]
        return [
            {"action": "left_click_drag", "start_coordinate": a, "coordinate": b}
            for a, b in itertools.pairwise(points)
        ]
    if kind == "keypress":
        return [{"action": "key", **keys}]
    if kind == "type":
        return [{"action": "type", "text": action.get("text", "")}]
    if kind == "scroll":
        return _scrolls(action, at)
    if kind == "wait":
        return [{"action": "wait", "duration": 1}]
    return [{"action": str(kind)}]


def _scrolls(action: Mapping[str, Any], at: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for distance, forward, back in (
        (int(action.get("scroll_y") or 0), "down", "up"),
        (int(action.get("scroll_x") or 0), "right", "left"),
    ):
        if distance:
            amount = max(1, round(abs(distance) / SCROLL_PIXELS))
            direction = forward if distance > 0 else back
            found.append({"action": "scroll", **at, "scroll_direction": direction, "scroll_amount": amount})
    return found
