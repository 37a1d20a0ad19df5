"""Read a tool's arguments, and answer a wrong one in words a model can act on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from hud.errors import HudError
from hud.types import MCPToolResult

Body = Callable[[Mapping[str, Any]], Awaitable[str]]


class ToolError(Exception):
    """Raised by a tool's body: the text is the answer, marked as an error."""


def answering(body: Body) -> Callable[[Mapping[str, Any]], Awaitable[MCPToolResult]]:
    """Return a handler: text becomes a result, and what the workspace refuses a result with `isError`."""

    @wraps(body)
    async def handler(arguments: Mapping[str, Any]) -> MCPToolResult:
        try:
            return MCPToolResult.of_text(await body(arguments))
        except ToolError as error:
            return MCPToolResult.of_text(str(error), error=True)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            return MCPToolResult.of_text(f"{error.strerror or error}{where}", error=True)
        except HudError as error:
            return MCPToolResult.of_text(str(error), error=True)

    return handler


def text(arguments: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Return a text argument."""
    value = arguments.get(name, default)
    if not isinstance(value, str):
        raise ToolError(
            f"argument {name!r} must be text, not {value!r}"
            if name in arguments
            else f"argument {name!r} is missing"
        )
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        odd = value[error.start]
        raise ToolError(
            f"argument {name!r} holds half a character, {odd!r}; write it whole or leave it out"
        ) from None
    return value


def number(arguments: Mapping[str, Any], name: str, default: int, *, least: int | None = None) -> int:
    """Return a whole number, `least` or more; text that is one passes."""
    value = arguments.get(name)
    if value is None:
        return default
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ToolError(f"argument {name!r} must be a whole number, not {value!r}") from None
    if least is not None and found < least:
        raise ToolError(f"argument {name!r} must be {least} or more, not {found}")
    return found


def schema(required: tuple[str, ...], **properties: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of an object with these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def string(description: str, **more: Any) -> dict[str, Any]:
    """Describe a text property."""
    return {"type": "string", "description": description, **more}


def integer(description: str, **more: Any) -> dict[str, Any]:
    """Describe a whole number."""
    return {"type": "integer", "description": description, **more}


def flag(description: str) -> dict[str, Any]:
    """Describe a yes or no."""
    return {"type": "boolean", "description": description}
