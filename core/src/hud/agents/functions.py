"""Custom tools: a plain typed Python function becomes a tool."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from hud.capability.tool import Tool, safe_name
from hud.errors import ConfigError
from hud.types.messages import MCPToolResult
from hud.values import plain


def function_tool(
    function: Callable[..., Any], *, name: str | None = None, description: str | None = None
) -> Tool:
    """Return a tool that calls `function`, whose annotations give the schema and whose docstring describes it.

    A plain function runs in a thread, a coroutine function on the loop. What it returns becomes text (other
    types than text as JSON), unless it is an `MCPToolResult`; what it raises is told to the model.

    Raises:
        ConfigError: a parameter has no annotation, or is positional-only or variadic.
    """
    from pydantic import ValidationError, create_model

    title = name or function.__name__
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"tool {title!r}: parameter {parameter} must be an ordinary, named one")
        if parameter.name not in hints:
            raise ConfigError(f"tool {title!r}: parameter {parameter.name!r} needs a type annotation")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    model = create_model(safe_name(title), __config__={"extra": "forbid"}, **fields)
    schema = model.model_json_schema()
    schema.pop("title", None)

    async def handler(arguments: Mapping[str, Any]) -> MCPToolResult:
        try:
            checked = model.model_validate(dict(arguments))
        except ValidationError as error:
            return MCPToolResult.of_text(_in_words(error), error=True)
        given = {key: getattr(checked, key) for key in fields}
        if inspect.iscoroutinefunction(function):
            returned = await function(**given)
        else:
            import asyncio

            returned = await asyncio.to_thread(function, **given)
        return _result(returned)

    text = description or inspect.getdoc(function) or title
    return Tool(safe_name(title), text, schema, handler)


def _in_words(error: Any) -> str:
    parts = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors()]
    return "; ".join(parts)


def _result(returned: Any) -> MCPToolResult:
    if isinstance(returned, MCPToolResult):
        return returned
    if returned is None:
        return MCPToolResult.of_text("done")
    if isinstance(returned, str):
        return MCPToolResult.of_text(returned)
    value = plain(returned)
    structured = value if isinstance(value, dict) else None
    text = json.dumps(value, ensure_ascii=False, default=str)
    return MCPToolResult([{"type": "text", "text": text}], structuredContent=structured)
