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
_POINTED = {
    "click": "left_click",
    "click_at": "left_click",
    "double_click": "double_click",
    "triple_click": "triple_click",
    "middle_click": "middle_click",
    "right_click": "right_click",
    "move": "mouse_move",
    "hover_at": "mouse_move",
}
"""Predefined functions that do one thing at a place -> our action."""
_DESKTOP = frozenset(
    {"click", "double_click", "triple_click", "middle_click", "right_click", "move", "mouse_down"}
)
_DESKTOP |= {"mouse_up", "type", "drag_and_drop", "wait", "press_key", "hotkey", "take_screenshot", "scroll"}
_BROWSER = frozenset({"click_at", "hover_at", "type_text_at", "scroll_at", "scroll_document"})
_BROWSER |= {"drag_and_drop", "key_combination", "wait_5_seconds"}
FUNCTIONS = _DESKTOP | _BROWSER
"""Of the predefined functions, those a desktop can do."""
_KEYS_HELD = ("key_down", "key_up")
_BROWSERS_OWN = ("open_web_browser", "search", "navigate", "go_back", "go_forward")


@dataclass(slots=True)
class Declared:
    """The declarations of a request, and how calls find back to our tools."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    ours: dict[str, str] = field(default_factory=dict)
    computer: Tool | None = None


def natives_of(model: str) -> frozenset[str]:
    """Return the native forms of a model, by its name."""
    return NATIVE if _has_desktop(model) or re.search(r"computer-use|gemini-3-flash", model) else frozenset()


def _has_desktop(model: str) -> bool:
    """Whether the model drives desktops: from 3.5 on. Those before it drive browsers, by older functions."""
    return re.search(r"gemini-(3\.[5-9]|[4-9]|\d\d)", model) is not None


def declare(
    tools: Sequence[Tool],
    natives: frozenset[str],
    hosted: Sequence[Any] = (),
    excluded: Sequence[str] = (),
    model: str = "",
) -> Declared:
    """Return the declarations of `tools` for `model`, and of the hosted tools."""
    out = Declared()
    functions: list[dict[str, Any]] = []
    for tool in tools:
        if tool.native in natives and out.computer is None:
            out.computer = tool
            desktop = _has_desktop(model)
            use = {
                "environment": "ENVIRONMENT_DESKTOP" if desktop else "ENVIRONMENT_BROWSER",
                "excluded_predefined_functions": [*(_KEYS_HELD if desktop else _BROWSERS_OWN), *excluded],
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

    def scroll(place: list[int], magnitude: Any) -> dict[str, Any]:
        amount = max(1, round(int(magnitude) * height / GRID / 100))
        direction = str(given.get("direction", "down"))
        return {
            "action": "scroll",
            "coordinate": place,
            "scroll_direction": direction,
            "scroll_amount": amount,
        }

    actions: list[dict[str, Any]]
    if name in _POINTED:
        actions = [{"action": _POINTED[name], "coordinate": at()}]
    elif name in ("mouse_down", "mouse_up"):
        actions = [{"action": "mouse_move", "coordinate": at()}, {"action": f"left_{name}"}]
    elif name in ("type", "type_text_at"):
        actions = _typing(given, at() if name == "type_text_at" else None)
    elif name == "scroll":
        actions = [scroll(at(), given.get("magnitude_in_pixels", 300))]
    elif name == "scroll_at":
        actions = [scroll(at(), given.get("magnitude", 800))]
    elif name == "scroll_document":
        actions = [scroll([width // 2, height // 2], 800)]
    elif name == "drag_and_drop":
        start, end = (at(), at("destination_x", "destination_y"))
        if "start_x" in given:
            start, end = at("start_x", "start_y"), at("end_x", "end_y")
        actions = [{"action": "left_click_drag", "start_coordinate": start, "coordinate": end}]
    elif name in ("key_combination", "hotkey", "press_key"):
        keys = given.get("keys", given.get("key", ""))
        actions = [{"action": "key", "text": keys if isinstance(keys, str) else "+".join(map(str, keys))}]
    elif name == "take_screenshot":
        actions = []
    else:
        actions = [{"action": "wait", "duration": 5 if name == "wait_5_seconds" else given.get("seconds", 1)}]
    return [*actions, {"action": "screenshot"}]


def _typing(given: Mapping[str, Any], place: list[int] | None) -> list[dict[str, Any]]:
    """Return what types a text: where the keyboard is, or in the field at `place`, which the older function clears."""
    actions: list[dict[str, Any]] = []
    if place is not None:
        actions.append({"action": "left_click", "coordinate": place})
        if given.get("clear_before_typing", True):
            actions += [{"action": "key", "text": "ctrl+a"}, {"action": "key", "text": "Delete"}]
    actions.append({"action": "type", "text": str(given.get("text", ""))})
    if given.get("press_enter", place is not None):
        actions.append({"action": "key", "text": "Return"})
    return actions
