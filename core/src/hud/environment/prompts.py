"""A template's first yield, made the reply to `tasks.start`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hud.environment.payload import FRAME_BYTES, NotJSONError, oversize, to_json
from hud.errors import PromptError
from hud.types.messages import read

_ROLES = ("user", "assistant", "system")


def prompt_reply(value: Any, where: str, limit: int = FRAME_BYTES) -> dict[str, Any]:
    """Return `{prompt, ...extra}`. `where` names the template, its file and line, for errors.

    A prompt is text, a list of messages, or a mapping with `prompt` and whatever else should travel. A message is a
    `PromptMessage`, MCP's, a mapping with `role` and `content`, or text (of the user). Content is text, a block, or
    a list of blocks as MCP writes them.

    Raises:
        PromptError: it is anything else, has no JSON form, or is longer than a frame of `limit` bytes.
    """
    if type(value) is str and len(value) * 6 < limit and value.isascii():
        return {"prompt": value}
    try:
        reply = _reply(value)
    except NotJSONError as error:
        raise PromptError(f"{where}: the prompt cannot be sent: {error}") from None
    too_long = oversize(reply, limit)
    if too_long is not None:
        size, path, length = too_long
        raise PromptError(
            f"{where}: the prompt needs {size:,} bytes and a frame holds {limit:,}; the largest part is {path} "
            f"({length:,} characters). Put large data into the workspace, or smaller images into the prompt"
        )
    return reply


def _reply(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        if "prompt" not in value:
            raise NotJSONError("", f"a mapping without `prompt`; it has {sorted(map(str, value))}")
        extra = to_json({key: item for key, item in value.items() if key != "prompt"})
        return {"prompt": _prompt(value["prompt"]), **extra}
    return {"prompt": _prompt(value)}


def _prompt(value: Any) -> Any:
    if isinstance(value, str):
        return to_json(value, "prompt")
    if isinstance(value, (list, tuple)):
        return [_message(item, f"prompt[{i}]") for i, item in enumerate(value)]
    if value is not None and read(value, "role") is not None and read(value, "content") is not None:
        return [_message(value, "prompt")]
    raise NotJSONError("prompt", f"a {type(value).__name__} is neither text nor a list of messages")


def _message(value: Any, path: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"role": "user", "content": to_json(value, path)}
    role, content = read(value, "role"), read(value, "content")
    if role is None or content is None:
        raise NotJSONError(path, f"a {type(value).__name__} is no message; it needs role and content")
    if role not in _ROLES:
        raise NotJSONError(f"{path}.role", f"{role!r} is none of {', '.join(_ROLES)}")
    made = to_json(content, f"{path}.content")
    for i, block in enumerate(made if isinstance(made, list) else [made]):
        _check_block(block, f"{path}.content" + (f"[{i}]" if isinstance(made, list) else ""))
    return {"role": str(role), "content": made}


def _check_block(block: Any, path: str) -> None:
    if isinstance(block, str):
        return
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise NotJSONError(path, "a content block needs a `type` (text, image, ...)")
    if block["type"] == "text" and not isinstance(block.get("text"), str):
        raise NotJSONError(f"{path}.text", "a text block needs `text`")
    if block["type"] == "image" and not (
        isinstance(block.get("data"), str) and isinstance(block.get("mimeType"), str)
    ):
        raise NotJSONError(path, "an image block needs `data` (base64) and `mimeType`")
