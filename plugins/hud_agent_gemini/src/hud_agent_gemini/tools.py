"""Tools as Gemini declares them, and its computer functions as calls of ours.

Source: Gemini API documentation, "Function calling" and "Computer use"; the types of google-genai 3.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hud.capability.tool import Tool, safe_name
from hud.errors import ConfigError

NATIVE = frozenset({"computer"})
HOSTED = ("google_search", "url_context", "code_execution")
GRID = 1000
"""The model's coordinates run from 0 to 999 over the screen's width and height."""
FUNCTIONS = frozenset(
    {
        "click_at",
        "hover_at",
        "type_text_at",
        "scroll_at",
        "scroll_document",
        "drag_and_drop",
        "key_combination",
        "wait_5_seconds",
    }
)
"""Of the predefined functions, those a desktop can do; the browser's own are excluded."""
_BROWSERS = ("open_web_browser", "search", "navigate", "go_back", "go_forward")


@dataclass(slots=True)
class Declared:
    """The declarations of a request, and how calls find back to our tools."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    ours: dict[str, str] = field(default_factory=dict)
    computer: Tool | None = None


def natives_of(model: str) -> frozenset[str]:
    """Return the native forms of a model, by its name."""
    return NATIVE if re.search(r"computer-use|gemini-([3-9]|\d\d)", model) else frozenset()


def declare(
    tools: Sequence[Tool], natives: frozenset[str], hosted: Sequence[Any] = (), excluded: Sequence[str] = ()
) -> Declared:
    """Return the declarations of `tools`, and of the hosted tools."""
    out = Declared()
    functions: list[dict[str, Any]] = []
    for tool in tools:
        if tool.native in natives and out.computer is None:
            out.computer = tool
            use = {
                "environment": "ENVIRONMENT_BROWSER",
                "excluded_predefined_functions": [*_BROWSERS, *excluded],
            }
            out.tools.append({"computer_use": use})
            continue
        name = safe_name(tool.name)
        out.ours[name] = tool.name
        functions.append(
            {"name": name, "description": tool.description, "parameters_json_schema": tool.parameters}
        )
    if functions:
        out.tools.append({"function_declarations": functions})
    for item in hosted:
        if isinstance(item, str):
            if item not in HOSTED:
                raise ConfigError(
                    f"unknown hosted tool {item!r}; known: {', '.join(HOSTED)}, or a declaration"
                )
            out.tools.append({item: {}})
        else:
            out.tools.append(dict(item))
    return out


def computer_actions(name: str, given: Mapping[str, Any], tool: Tool) -> list[dict[str, Any]]:
    """Return a predefined function's call as actions of our computer tool, ending with a screenshot."""
    width, height = int(tool.hints.get("width", 1280)), int(tool.hints.get("height", 800))

    def at(x: str = "x", y: str = "y") -> list[int]:
        return [round(int(given.get(x, 0)) * width / GRID), round(int(given.get(y, 0)) * height / GRID)]

    actions: list[dict[str, Any]]
    if name == "click_at":
        actions = [{"action": "left_click", "coordinate": at()}]
    elif name == "hover_at":
        actions = [{"action": "mouse_move", "coordinate": at()}]
    elif name == "type_text_at":
        actions = [{"action": "left_click", "coordinate": at()}]
        if given.get("clear_before_typing", True):
            actions += [{"action": "key", "text": "ctrl+a"}, {"action": "key", "text": "Delete"}]
        actions.append({"action": "type", "text": str(given.get("text", ""))})
        if given.get("press_enter", True):
            actions.append({"action": "key", "text": "Return"})
    elif name in ("scroll_at", "scroll_document"):
        place = at() if name == "scroll_at" else [width // 2, height // 2]
        amount = max(1, round(int(given.get("magnitude", 800)) * height / GRID / 100))
        actions = [
            {
                "action": "scroll",
                "coordinate": place,
                "scroll_direction": str(given.get("direction", "down")),
                "scroll_amount": amount,
            }
        ]
    elif name == "drag_and_drop":
        end = at("destination_x", "destination_y")
        actions = [{"action": "left_click_drag", "start_coordinate": at(), "coordinate": end}]
    elif name == "key_combination":
        actions = [{"action": "key", "text": str(given.get("keys", ""))}]
    else:
        actions = [{"action": "wait", "duration": 5}]
    return [*actions, {"action": "screenshot"}]
