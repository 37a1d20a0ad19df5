"""The neutral tool: what a capability offers to any agent, and what any agent can render."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hud.types.messages import MCPToolResult

Native = Literal["bash", "text_editor", "apply_patch", "computer", "shell", "browser"]
Handler = Callable[[Mapping[str, Any]], Awaitable[MCPToolResult]]


@dataclass(slots=True, frozen=True)
class Tool:
    """A named action with a JSON Schema for its arguments.

    `handler` receives the arguments, already an object that matches `parameters`, and returns a result; its own
    failure is a result with `isError`. `native` names a form that some providers know by themselves (`bash`,
    `text_editor`, `apply_patch`, `computer`): an agent renders it natively where its provider has that form and
    as a function tool otherwise. `hints` carries what a native form needs (a screen's `width` and `height`).
    `parallel` is False where two calls in one turn must not overlap (they then run in order).
    `timeout_s` bounds one call; None leaves it to the agent. `close` is awaited when the agent is done.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    handler: Handler
    native: Native | None = None
    hints: dict[str, Any] = field(default_factory=dict)
    parallel: bool = True
    timeout_s: float | None = None
    close: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, arguments: Mapping[str, Any] | None = None) -> MCPToolResult:
        """Call the tool with `arguments`."""
        return await self.handler(arguments or {})


_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def safe_name(name: str) -> str:
    """Return `name` as every provider accepts it: letters, digits, `_`, `-`, at most 64 characters.

    Where something had to change, eight hex digits of the original's SHA-1 keep two names apart.
    """
    import hashlib

    cleaned = _UNSAFE.sub("_", name)
    if cleaned == name and 0 < len(name) <= 64:
        return name
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:8]
    return f"{cleaned[:55]}_{digest}"
