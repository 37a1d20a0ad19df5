"""Host calls answered: model calls for graders that run where no key is (wire.md, "Host calls").

Keys, limiter, budget, cache and record stay on this side.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Protocol, Self

from hud.agents.callcache import CallCache, call_key
from hud.agents.dialects import DIALECTS
from hud.agents.modelcall import ModelCaller, usage_in
from hud.agents.reserving import CHARS_PER_TOKEN, FREE, Reservation
from hud.agents.routing import Route, resolve, resolve_plain
from hud.errors import (
    BadParamsError,
    BudgetExhaustedError,
    ConfigError,
    HudProtocolError,
    LimitError,
    ProviderError,
)
from hud.types.messages import Usage

NOTES = "x_hud"
"""A field of the body that is for us, not for the provider: `slot` tells votes apart, `cache: false` asks anew."""
LONGEST_S = 600.0


@dataclass(slots=True, frozen=True)
class HostCall:
    """One call as it is recorded. `error` is None where a reply was given; `cached` ones cost nothing."""

    dialect: str
    model: str
    started_at: float
    ended_at: float
    usage: Usage
    cached: bool = False
    error: str | None = None


class Budget(Protocol):
    """What holds a limit on spending; a job's or rollout's meter does."""

    def check(self, *, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Raise `LimitError` where spending so much more would pass a limit."""
        ...


Reserve = Callable[..., Awaitable[Reservation]]
"""`async (*, model, prompt_tokens, output_tokens, shrinks) -> Reservation`."""


class HostModel:
    """Answers an environment's `host.model` calls; use it with `async with`, for one job or one rollout.

    `models` are the patterns of names that may be asked for; `base_url` and `api_key` route every call, otherwise
    the variables and the gateway do. `budget` is asked before a call, `reserve` holds what it may cost, `record` is
    told of every one. With a `cache`, an identical question is answered from it.
    """

    def __init__(
        self,
        *,
        models: Collection[str] = ("*",),
        base_url: str | None = None,
        api_key: str | None = None,
        gateway: bool = False,
        budget: Budget | None = None,
        reserve: Reserve | None = None,
        record: Callable[[HostCall], None] | None = None,
        cache: CallCache | None = None,
    ) -> None:
        self._models = tuple(models)
        self._base_url = base_url
        self._api_key = api_key
        self._gateway = gateway
        self._budget = budget
        self._reserve = reserve
        self._record = record
        self._cache = cache
        self._caller = ModelCaller()

    async def __aenter__(self) -> Self:
        await self._caller.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._caller.__aexit__(kind, error, tb)

    async def model(
        self, *, dialect: str, model: str, body: Mapping[str, Any], deadline_s: float
    ) -> dict[str, Any]:
        """Return the provider's reply.

        Raises:
            BadParamsError: the dialect is unknown, or the model not one of this job's.
            HudProtocolError: nothing can serve it, the budget is used up, or the provider failed.
        """
        if not any(fnmatchcase(model, pattern) for pattern in self._models):
            raise BadParamsError(
                -32602,
                f"model {model!r} is none of this job's host models: {', '.join(self._models) or 'none'}",
            )
        asked = dict(body)
        notes = asked.pop(NOTES, None) or {}
        route = self._route(dialect, model)
        key = call_key(dialect, model, asked, int(notes.get("slot", 0)))
        start = time.time()
        use_cache = self._cache is not None and notes.get("cache", True)
        if use_cache and self._cache is not None and (kept := self._cache.get(key)) is not None:
            self._tell(
                HostCall(
                    dialect, model, start, time.time(), Usage(llm_call_count=0, cost_usd=0.0), cached=True
                )
            )
            return kept
        try:
            if self._budget is not None:
                self._budget.check(tokens=len(str(asked)) // 4)
            with await self._held(model, asked) as held:
                sent = asked if held.output_tokens is None else {**asked, _bound(asked): held.output_tokens}
                reply = await self._caller.call(route, sent, deadline_s=min(float(deadline_s), LONGEST_S))
                held.settle(usage_in(route, reply))
        except (ProviderError, LimitError, ConfigError) as error:
            unknown = Usage(llm_call_count=0, cost_usd=0.0)
            self._tell(HostCall(dialect, model, start, time.time(), unknown, error=str(error)))
            raise _as_protocol_error(error) from error
        self._tell(HostCall(dialect, model, start, time.time(), usage_in(route, reply)))
        if self._cache is not None and _came_to_its_end(route.dialect.name, reply):
            self._cache.put(key, reply)
        return reply

    async def _held(self, model: str, body: Mapping[str, Any]) -> Reservation:
        if self._reserve is None:
            return FREE
        bound = _bound(body)
        return await self._reserve(
            model=model,
            prompt_tokens=len(str(body)) // CHARS_PER_TOKEN,
            output_tokens=body.get(bound),
            shrinks=bool(bound),
        )

    def _route(self, dialect: str, model: str) -> Route:
        if dialect not in DIALECTS:
            raise BadParamsError(-32602, f"unknown dialect {dialect!r}; known: {', '.join(DIALECTS)}")
        options: dict[str, Any] = {
            "base_url": self._base_url,
            "api_key": self._api_key,
            "gateway": self._gateway,
        }
        try:
            plain = resolve_plain(model, **options)
            return plain if plain.dialect.name == dialect else resolve(model, dialect, **options)
        except ConfigError as error:
            raise HudProtocolError(-32000, str(error), {"type": "ConfigError", "retryable": False}) from error

    def _tell(self, call: HostCall) -> None:
        if self._record is not None:
            self._record(call)


def _bound(body: Mapping[str, Any]) -> str:
    """Return the field of a body that bounds the reply, an empty text where none does."""
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    return next((name for name in names if isinstance(body.get(name), int)), "")


def _came_to_its_end(dialect: str, reply: Mapping[str, Any]) -> bool:
    """Whether a reply is worth keeping: not cut, not refused, and a reply at all. Asked again, it may be better."""
    if dialect == "anthropic":
        return bool(reply.get("content")) and reply.get("stop_reason") not in ("refusal", "max_tokens")
    if dialect == "openai-chat":
        choice = next(iter(reply.get("choices") or ()), None) or {}
        message = choice.get("message") or {}
        ended = choice.get("finish_reason") not in ("length", "content_filter")
        return (
            ended and bool(message.get("content") or message.get("tool_calls")) and not message.get("refusal")
        )
    return True


def _as_protocol_error(error: ProviderError | LimitError | ConfigError) -> HudProtocolError:
    data: dict[str, Any] = {"type": type(error).__name__, "retryable": error.retryable}
    if isinstance(error, ProviderError):
        data |= {"status": error.status, "retry_after_s": error.retry_after_s}
    code = -32002 if isinstance(error, BudgetExhaustedError) else -32000
    return HudProtocolError(code, str(error), data)
