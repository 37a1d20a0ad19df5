"""Asking a model: by host calls where the client offers them, else directly; cached, with models to fall back on."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hud.agents.callcache import CallCache, FolderCache, MemoryCache, call_key
from hud.agents.dialects import DIALECTS
from hud.agents.hostmodel import NOTES
from hud.agents.modelcall import ModelCaller, usage_in
from hud.agents.routing import Route, dialect_for, resolve_plain
from hud.environment import current
from hud.errors import ConfigError, GraderError, HudProtocolError, ProviderError, WireError
from hud.types.messages import Usage
from hud_grader_llm.question import Question, ReplyText, read_reply

if TYPE_CHECKING:
    from hud.wire.service import HostCalls

DEFAULT_MODEL = "claude-haiku-4-5"
MODEL_VARIABLE = "HUD_JUDGE_MODEL"
CACHE_VARIABLE = "HUD_JUDGE_CACHE"
DEADLINE_S = 240.0

_memory = MemoryCache()
_unstructured: set[str] = set()
"""Addresses and models that refused to hold a reply to a schema."""


def default_model() -> str:
    """Return the judge's model where none is named."""
    return os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Which models are asked and how. `models` are tried in order, the next where one fails for good.

    `base_url`, `api_key` and `gateway` route as agents are; with none of them, host calls are used where there are
    any. `cache` answers an identical question from an earlier reply. `deadline_s` bounds one question.
    """

    models: Sequence[str] = ()
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    gateway: bool = False
    cache: bool = True
    deadline_s: float = DEADLINE_S

    @classmethod
    def of(cls, model: str | Sequence[str] | None, **options: Any) -> Judge:
        """Make one from a name or a list of names; None takes the default.

        Raises:
            GraderError: it is neither.
        """
        given: Any = default_model() if model is None else model
        names = [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence) else []
        if not names or not all(isinstance(name, str) and name for name in names):
            raise GraderError(f"model={model!r} must be a name or a list of names")
        return cls(models=names, **options)


@dataclass(frozen=True, slots=True)
class Asked:
    """A reply and what it took. `failures` are those of models tried before."""

    reply: ReplyText
    model: str
    usage: Usage
    seconds: float
    cached: bool
    by_host: bool
    failures: Sequence[str] = ()
    key: str = ""
    """Where the reply may be kept, once it has been read; empty where there is no cache, or it came from there."""


class Asker:
    """Asks one judge's models; use it with `async with`."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._caller = ModelCaller()
        session = current()
        direct = judge.base_url or judge.api_key or judge.gateway
        self._host: HostCalls | None = None if direct or session is None else session.host

    async def __aenter__(self) -> Self:
        await self._caller.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._caller.__aexit__(kind, error, tb)

    def keep(self, asked: Asked) -> None:
        """Keep a reply that could be read, for the same question to come."""
        if asked.key:
            _cache().put(asked.key, asked.reply.raw)

    async def ask(self, question: Question, *, slot: int = 0, fresh: bool = False) -> Asked:
        """Ask the first model that answers; `slot` tells apart repetitions of the same question.

        The models share the deadline: each has an equal part of what is left, so that one that hangs leaves time for
        the next. `fresh` neither looks into a cache nor lets the client keep the reply.

        Raises:
            GraderError: none did; says why for each.
        """
        failures: list[str] = []
        retryable = False
        end = time.monotonic() + self._judge.deadline_s
        for place, model in enumerate(self._judge.models):
            left = max(0.0, end - time.monotonic()) / (len(self._judge.models) - place)
            try:
                asked = await self._ask_one(model, question, slot, failures, fresh=fresh, within_s=left)
            except (ProviderError, ConfigError, WireError) as error:
                retryable = retryable or error.retryable
                failures.append(str(error))
                continue
            if not asked.reply.refused:
                return asked
            failures.append(f"{model} refused to judge: {asked.reply.text[:200]}")
        failed = GraderError(f"no judge could be asked: {'; '.join(failures) or 'no model is named'}")
        failed.retryable = retryable
        raise failed

    async def _ask_one(
        self,
        model: str,
        question: Question,
        slot: int,
        failures: Sequence[str],
        *,
        fresh: bool,
        within_s: float,
    ) -> Asked:
        start = time.monotonic()
        if self._host is not None:
            try:
                dialect = dialect_for(model)
                reply = await self._by_host(
                    self._host, dialect, model, question, slot, fresh=fresh, within_s=within_s
                )
            except HudProtocolError as error:
                if error.data.get("type") != "ConfigError":
                    raise
                failures = [*failures, f"by host call: {error.message}"]
            else:
                # The host has counted and priced this call; its record is the one that is billed.
                route = Route(model, DIALECTS[dialect], "host", "", "gateway")
                took = time.monotonic() - start
                return Asked(
                    read_reply(dialect, reply),
                    model,
                    usage_in(route, reply),
                    took,
                    False,
                    True,
                    list(failures),
                )
        judge = self._judge
        route = resolve_plain(model, base_url=judge.base_url, api_key=judge.api_key, gateway=judge.gateway)
        reply, cached, key = await self._direct(route, question, slot, fresh=fresh, within_s=within_s)
        usage = Usage(cost_usd=0.0, llm_call_count=0) if cached else usage_in(route, reply)
        took = time.monotonic() - start
        text = read_reply(route.dialect.name, reply)
        return Asked(text, model, usage, took, cached, False, list(failures), key)

    async def _by_host(
        self,
        host: HostCalls,
        dialect: str,
        model: str,
        question: Question,
        slot: int,
        *,
        fresh: bool,
        within_s: float,
    ) -> dict[str, Any]:
        end = time.monotonic() + within_s
        notes: dict[str, Any] = {"slot": slot} if slot else {}
        if fresh or not self._judge.cache:
            notes["cache"] = False

        async def send(body: dict[str, Any]) -> dict[str, Any]:
            asked = {**body, NOTES: notes} if notes else body
            left = max(0.0, end - time.monotonic())
            return await host.model(dialect=dialect, model=model, body=asked, deadline_s=left)

        place = f"host {model}"
        body = question.body(dialect, model, structured=place not in _unstructured)
        try:
            return await send(body)
        except HudProtocolError as error:
            if not _refuses_schema(error.data.get("status"), error.message, body):
                raise
            reply = await send(question.body(dialect, model, structured=False))
            _unstructured.add(place)
            return reply

    async def _direct(
        self, route: Route, question: Question, slot: int, *, fresh: bool, within_s: float
    ) -> tuple[dict[str, Any], bool, str]:
        end = time.monotonic() + within_s
        place = f"{route.base_url} {route.model}"
        name = route.dialect.name
        body = question.body(name, route.model, structured=place not in _unstructured)
        key = ""
        if self._judge.cache and not fresh:
            # The same name at an address of one's own may be another model.
            key = call_key(name, place if route.how == "base_url" else route.model, body, slot)
            if (kept := _cache().get(key)) is not None:
                return kept, True, ""
        try:
            reply = await self._caller.call(route, body, deadline_s=within_s)
        except ProviderError as error:
            if not _refuses_schema(error.status, str(error), body):
                raise
            body = question.body(name, route.model, structured=False)
            reply = await self._caller.call(route, body, deadline_s=max(0.0, end - time.monotonic()))
            _unstructured.add(place)
        return reply, False, key


def _cache() -> CallCache:
    folder = os.environ.get(CACHE_VARIABLE)
    return FolderCache(folder) if folder else _memory


def _refuses_schema(status: Any, message: str, body: Mapping[str, Any]) -> bool:
    """Whether a refusal is of the schema, so that asking without it can help."""
    if status not in (400, 404, 422) or not {"response_format", "output_config"} & set(body):
        return False
    return any(
        word in message for word in ("response_format", "output_config", "json_schema", "schema", "format")
    )
