"""Gemini: `POST /v1beta/models/MODEL:generateContent` and `:streamGenerateContent?alt=sse`.

Source: Gemini API reference, "Generating content".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from hud.testing.llm.faults import RateLimit
from hud.testing.llm.sse import event, pieces
from hud.testing.llm.turns import Ask, Call, Result, Said, Turn

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def parse(body: dict[str, Any], headers: Mapping[str, str], model: str, *, stream: bool) -> Ask:
    """Read a request; what Gemini would refuse raises `ValueError`."""
    messages: list[Said] = []
    told = _spelled(body)
    if told.get("systemInstruction"):
        messages.append(Said("system", _text(told["systemInstruction"]["parts"])))
    for content in told["contents"]:
        messages.extend(_said(content))
    tools: dict[str, dict[str, Any]] = {}
    for tool in map(_spelled, told.get("tools") or []):
        for function in tool.get("functionDeclarations") or []:
            tools[function["name"]] = function
        tools.update({kind: tool for kind in tool if kind != "functionDeclarations"})
    _check_mix(tools, _spelled(told.get("toolConfig") or {}), headers, model)
    config = _spelled(told.get("generationConfig") or {})
    if re.search(r"gemma-[1-3]|gemini-(1|2\.0)", model) and "thinkingConfig" in config:
        raise ValueError(f"Thinking is not enabled for models/{model}")
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    return Ask("gemini", model, messages, tools, stream, body, headers, schema=schema)


def _check_mix(
    tools: Mapping[str, Any], config: Mapping[str, Any], headers: Mapping[str, str], model: str
) -> None:
    """Refuse the API's own tools beside functions, unless their calls may be shown; Vertex has no such rule."""
    own = any("name" not in tool for tool in tools.values())
    functions = any("name" in tool for tool in tools.values())
    if not (own and functions and "x-goog-api-key" in headers and re.search(r"gemini-([3-9]|\d\d)", model)):
        return
    if not config.get("includeServerSideToolInvocations"):
        raise ValueError(
            "Please enable tool_config.include_server_side_tool_invocations to use Built-in tools with Function "
            "calling."
        )


def _spelled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` in camel case: the API reads both spellings of its own names."""
    return {re.sub("_([a-z])", lambda found: found[1].upper(), name): value for name, value in fields.items()}


def _text(parts: list[dict[str, Any]]) -> str:
    return "\n".join(str(p["text"]) for p in parts if "text" in p and not p.get("thought"))


def _said(content: Mapping[str, Any]) -> Iterator[Said]:
    parts = [_spelled(part) for part in content.get("parts") or []]
    if content.get("role") == "model":
        calls = [
            Call(
                p["functionCall"]["name"],
                p["functionCall"].get("args") or {},
                p["functionCall"].get("id") or "",
            )
            for p in parts
            if "functionCall" in p
        ]
        yield Said("assistant", _text(parts), calls=calls)
        return
    results = [_result(p["functionResponse"]) for p in parts if "functionResponse" in p]
    if results:
        yield Said("tool", results=results)
    text = _text(parts)
    images = sum(_is_image(p) for p in parts)
    if text or images or not results:
        yield Said("user", text, images)


def _is_image(part: Mapping[str, Any]) -> bool:
    return "inlineData" in part


def _result(answer: Mapping[str, Any]) -> Result:
    given = answer.get("response") or {}
    text = str(given.get("output") or given.get("error") or given.get("result") or given)
    images = sum(_is_image(_spelled(p)) for p in answer.get("parts") or [])
    return Result(answer.get("id") or answer["name"], text, images, "error" in given)


def _finish(turn: Turn, *, malformed: bool) -> str:
    if malformed:
        return "MALFORMED_FUNCTION_CALL"
    if turn.refusal is not None:
        return "SAFETY"
    return "MAX_TOKENS" if turn.stop == "length" else "STOP"


def _parts(turn: Turn) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if turn.reasoning:
        parts.append({"text": turn.reasoning, "thought": True})
    if turn.text:
        parts.append({"text": turn.text})
    for call in turn.calls:
        if isinstance(call.arguments, str):
            continue
        function = {
            "name": call.name,
            "args": dict(call.arguments),
            "id": call.id or f"fc_{uuid4().hex[:12]}",
        }
        parts.append({"functionCall": function, "thoughtSignature": "c2lnbmF0dXJl"})
    return parts


def _body(ask: Ask, turn: Turn, parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
        if turn.refusal:
            candidate["finishMessage"] = turn.refusal
        if turn.citations:
            candidate["groundingMetadata"] = {
                "groundingChunks": [{"web": dict(c)} for c in turn.citations],
                "groundingSupports": [
                    {
                        "segment": {"startIndex": 0, "endIndex": len(turn.text), "text": turn.text},
                        "groundingChunkIndices": [i],
                    }
                    for i in range(len(turn.citations))
                ],
            }
    out = max(1, len(turn.words))
    usage = {
        "promptTokenCount": ask.prompt_tokens,
        "cachedContentTokenCount": ask.cached_tokens,
        "candidatesTokenCount": out,
        "totalTokenCount": ask.prompt_tokens + out,
    }
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": ask.model,
        "responseId": uuid4().hex[:20],
    }


def _malformed(turn: Turn) -> bool:
    return any(isinstance(call.arguments, str) for call in turn.calls)


def reply(turn: Turn, ask: Ask) -> dict[str, Any]:
    """Return the whole response."""
    return _body(ask, turn, _parts(turn), _finish(turn, malformed=_malformed(turn)))


def events(turn: Turn, ask: Ask) -> Iterator[bytes]:
    """Yield the stream's events."""
    for part in _parts(turn):
        if "text" in part:
            for piece in pieces(part["text"]):
                yield event(_body(ask, turn, [{**part, "text": piece}], None))
        else:
            yield event(_body(ask, turn, [part], None))
    yield event(_body(ask, turn, [], _finish(turn, malformed=_malformed(turn))))


def error(status: int, message: str) -> dict[str, Any]:
    """Return the body of an error."""
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}}


def too_long(tokens: int, limit: int) -> str:
    """Return what is said of a prompt beyond the window."""
    return f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({limit})."


def limit_headers(_limit: RateLimit) -> dict[str, str]:
    """Return no headers: Gemini sends none; it names a delay in the error of a refused call."""
    return {}
