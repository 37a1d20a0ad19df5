"""The simulated provider: one loopback server that speaks four dialects."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any, Self

from hud.testing.llm import anthropic, clouds, gemini, openai_chat, openai_responses
from hud.testing.llm.faults import Fault, FaultPlan, RateLimit
from hud.testing.llm.http import CutConnectionError, HttpReply, HttpRequest, HttpServer
from hud.testing.llm.turns import Ask, Dialect, Responder, Turn, script

IMAGE_TOKENS = 1500
_MODULES: dict[Dialect, ModuleType] = {
    "anthropic": anthropic,
    "openai-chat": openai_chat,
    "openai-responses": openai_responses,
    "gemini": gemini,
}


class ModelServer:
    """Answers as a model would, by a rule or a script; use it with `async with`.

    `respond` is a function from `Ask` to `Turn` (or a coroutine function), or a `Turn` said always. `faults`
    decides which calls fail and how, `limit` how many are let in, `latency_s` how long the model thinks,
    `context_tokens` the size of its window. `asks` keeps every request that was let in, `statuses` counts
    replies by HTTP status. `key`, when given, is the only API key that is accepted.

    Bedrock's and Vertex's paths to Anthropic's Messages, and Vertex's to Gemini, are served too: requests to Bedrock
    must be signed (by whom is not checked), and `POST /token` gives what a Google service account asks for.
    """

    def __init__(
        self,
        respond: Responder | Turn,
        *,
        faults: FaultPlan | None = None,
        limit: RateLimit | None = None,
        latency_s: float = 0.0,
        context_tokens: int | None = None,
        key: str | None = None,
    ) -> None:
        self._respond = script(respond) if isinstance(respond, Turn) else respond
        self._faults = faults
        self._limit = limit
        self._latency_s = latency_s
        self._context_tokens = context_tokens
        self._key = key
        self._http = HttpServer(self._handle)
        self._responses: dict[str, list[dict[str, Any]]] = {}
        self._cached: set[str] = set()
        self.asks: list[Ask] = []
        self.statuses: Counter[int] = Counter()
        self.in_flight = 0
        self.peak_in_flight = 0

    async def __aenter__(self) -> Self:
        await self._http.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.close()

    @property
    def url(self) -> str:
        """The address without any path: Anthropic's and Gemini's base URL."""
        return self._http.url

    @property
    def openai_url(self) -> str:
        """The base URL of both OpenAI dialects."""
        return f"{self._http.url}/v1"

    def base_url(self, dialect: Dialect) -> str:
        """Return the base URL an SDK of `dialect` expects."""
        return self.openai_url if dialect.startswith("openai") else self.url

    def environment(self, key: str = "simulated") -> dict[str, str]:
        """Return the variables that point the official SDKs here."""
        key = self._key or key
        return {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": key,
            "OPENAI_BASE_URL": self.openai_url,
            "OPENAI_API_KEY": key,
            "GOOGLE_GEMINI_BASE_URL": self.url,
            "GEMINI_API_KEY": key,
        }

    async def _handle(self, request: HttpRequest) -> HttpReply:
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            reply = await self._answer(request)
        finally:
            self.in_flight -= 1
        self.statuses[reply.status] += 1
        return reply

    async def _answer(self, request: HttpRequest) -> HttpReply:
        if request.method == "POST" and request.path == "/token":
            return _json(
                200, {"access_token": self._key or "simulated", "expires_in": 3600, "token_type": "Bearer"}
            )
        try:
            plain = clouds.as_messages(request)
        except ValueError as error:
            return _json(400, self._error("anthropic", 400, str(error)))
        reply = await self._answer_plain(plain or request, signed=clouds.is_bedrock(request))
        if clouds.is_bedrock(request) and not isinstance(reply.body, bytes):
            reply.body = clouds.event_stream(reply.body)
            reply.content_type = clouds.EVENT_STREAM
        return reply

    async def _answer_plain(self, request: HttpRequest, *, signed: bool) -> HttpReply:
        dialect = _dialect_of(request)
        if dialect is None:
            if request.method == "GET" and request.path.endswith("/models"):
                return _json(200, {"object": "list", "data": [{"id": "simulated", "object": "model"}]})
            return _json(404, openai_chat.error(404, f"no such path: {request.method} {request.path}"))
        if signed and "Credential=" not in request.headers.get("authorization", ""):
            return _json(403, self._error(dialect, 403, "the request is not signed"))
        if self._key is not None and not signed and _key_of(request) != self._key:
            return _json(401, self._error(dialect, 401, "invalid x-api-key"))
        if self._limit is not None and (wait := self._limit.take()):
            return self._refused(dialect, wait)
        try:
            ask = self._parse(dialect, request)
        except (ValueError, KeyError, TypeError) as error:
            return _json(400, self._error(dialect, 400, str(error)))
        ask.number = len(self.asks)
        self._count(ask)
        self.asks.append(ask)
        fault = self._faults(ask) if self._faults else None
        if fault is not None and fault.kind in ("status", "hang", "garbage"):
            return await self._failed(dialect, fault)
        if self._context_tokens is not None and ask.prompt_tokens > self._context_tokens:
            message = self._module(dialect).too_long(ask.prompt_tokens, self._context_tokens)
            return _json(400, self._error(dialect, 400, message))
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        said = self._respond(ask)
        turn = await said if inspect.isawaitable(said) else said
        reply = self._rendered(turn, ask, fault)
        if self._limit is not None and self._limit.headers:
            reply.headers |= self._limit_headers(dialect)
        return reply

    def _parse(self, dialect: Dialect, request: HttpRequest) -> Ask:
        body = json.loads(request.body)
        if dialect == "gemini":
            model, _, verb = request.path.rpartition("/models/")[2].partition(":")
            return gemini.parse(body, request.headers, model, stream=verb.startswith("stream"))
        if dialect == "openai-responses":
            previous = body.get("previous_response_id")
            if previous is not None and previous not in self._responses:
                raise ValueError(f"Previous response with id '{previous}' not found.")
            return openai_responses.parse(body, request.headers, self._responses.get(previous, []))
        ask: Ask = self._module(dialect).parse(body, request.headers)
        return ask

    def _count(self, ask: Ask) -> None:
        """Estimate tokens (four characters each) and find how much of the prompt was sent before."""
        if ask.dialect == "anthropic":
            parts = anthropic.prefixes(ask.body)
        else:
            shown = ask.body.get("messages") or ask.body.get("input") or ask.body.get("contents") or []
            parts = [(json.dumps(part, sort_keys=True), True) for part in shown]
        digest = hashlib.sha256(ask.model.encode())
        tokens = (
            sum(len(m.text) for m in ask.messages if m.role == "system") // 4 * (ask.dialect != "anthropic")
        )
        cached = 0
        fresh: list[str] = []
        for text, breakpoint_ in parts:
            digest.update(text.encode())
            tokens += _tokens(text)
            if breakpoint_:
                key = digest.hexdigest()
                fresh.append(key)
                if key in self._cached:
                    cached = tokens
        self._cached.update(fresh)
        ask.prompt_tokens = max(1, tokens)
        ask.cached_tokens = min(cached, ask.prompt_tokens)

    def _rendered(self, turn: Turn, ask: Ask, fault: Fault | None) -> HttpReply:
        module = self._module(ask.dialect)
        if not ask.stream:
            body = module.reply(turn, ask)
            if ask.dialect == "openai-responses":
                self._remember(body, ask)
            text = json.dumps(body).encode()
            if fault is not None and fault.kind == "cut":
                return HttpReply(body=_faulty(iter([text[: len(text) // 2], b""]), fault, pieces=1))
            return HttpReply(body=text)
        stream: Iterator[bytes]
        if ask.dialect == "openai-responses":
            stream = self._remembered(openai_responses.events(turn, ask), ask)
        else:
            stream = module.events(turn, ask)
        return HttpReply(body=_faulty(stream, fault), content_type="text/event-stream; charset=utf-8")

    def _remembered(self, stream: Iterator[tuple[bytes, dict[str, Any] | None]], ask: Ask) -> Iterator[bytes]:
        for blob, final in stream:
            if final is not None:
                self._remember(final, ask)
            yield blob

    def _remember(self, response: dict[str, Any], ask: Ask) -> None:
        if ask.body.get("store", True):
            self._responses[response["id"]] = [*ask.body["input"], *response["output"]]

    async def _failed(self, dialect: Dialect, fault: Fault) -> HttpReply:
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "garbage":
            return HttpReply(body=b"<html>bad gateway</html>", content_type="text/html")
        reply = _json(fault.status, self._error(dialect, fault.status, fault.message))
        if fault.retry_after_s is not None:
            reply.headers["retry-after"] = f"{fault.retry_after_s:g}"
        return reply

    def _refused(self, dialect: Dialect, wait_s: float) -> HttpReply:
        body = self._error(dialect, 429, f"rate limit reached; try again in {wait_s:.3f}s")
        if dialect == "gemini":
            info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait_s:.3f}s"}
            body["error"]["details"] = [info]
        reply = _json(429, body)
        assert self._limit is not None
        if self._limit.headers:
            reply.headers |= {"retry-after": str(max(1, round(wait_s))), **self._limit_headers(dialect)}
        return reply

    def _limit_headers(self, dialect: Dialect) -> dict[str, str]:
        assert self._limit is not None
        headers: dict[str, str] = self._module(dialect).limit_headers(self._limit)
        return headers

    def _error(self, dialect: Dialect, status: int, message: str) -> dict[str, Any]:
        body: dict[str, Any] = self._module(dialect).error(status, message)
        return body

    def _module(self, dialect: Dialect) -> Any:
        return _MODULES[dialect]


def _dialect_of(request: HttpRequest) -> Dialect | None:
    if request.method != "POST":
        return None
    path = request.path
    if path.endswith("/messages"):
        return "anthropic"
    if path.endswith("/chat/completions"):
        return "openai-chat"
    if path.endswith("/responses"):
        return "openai-responses"
    return "gemini" if "/models/" in path and "enerateContent" in path else None


def _key_of(request: HttpRequest) -> str:
    headers = request.headers
    bearer = headers.get("authorization", "").removeprefix("Bearer ")
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or bearer


def _tokens(text: str) -> int:
    """Count an image as one of its own; base64 is no text."""
    images = sum(text.count(mark) for mark in ('"base64"', "data:image/", '"inlineData"', '"inline_data"'))
    if images:
        return images * IMAGE_TOKENS
    return len(text) // 4


def _json(status: int, body: dict[str, Any]) -> HttpReply:
    return HttpReply(status, json.dumps(body).encode())


async def _faulty(
    stream: Iterator[bytes], fault: Fault | None, *, pieces: int | None = None
) -> AsyncIterator[bytes]:
    """Send `stream`, slowed or cut as `fault` says."""
    limit = pieces if pieces is not None else (fault.after if fault is not None else 0)
    for count, blob in enumerate(stream):
        if fault is not None and fault.kind == "cut" and count >= limit:
            raise CutConnectionError
        if fault is not None and fault.kind == "slow":
            await asyncio.sleep(fault.delay_s)
        if blob:
            yield blob
