"""Model calls that environments' graders ask of this side, for a whole job."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hud.agents.reserving import FREE
from hud.environment.kept_state import DIALECT

if TYPE_CHECKING:
    from hud.agents.callcache import CallCache
    from hud.agents.hostmodel import HostCall, HostModel
    from hud.agents.reserving import Reservation
    from hud.eval.run import Run
    from hud.wire.hostcalls import HostModel as Answering

_asking: ContextVar[Run] = ContextVar("hud_asking_run")


class GraderModels:
    """Answers host calls with this side's keys, and counts each with the rollout that asked.

    What answers is made at the first call, so that a job whose graders ask for no model costs nothing. `models`
    are the names, or patterns, that may be asked for; `cache` answers what was asked before.
    """

    def __init__(self, models: Collection[str] = ("*",), cache: CallCache | None = None) -> None:
        self._models = tuple(models)
        self._cache = cache
        self._stack = AsyncExitStack()
        self._host: HostModel | None = None
        self._opening: asyncio.Lock | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def for_run(self, run: Run) -> Answering:
        """Return what answers the host calls of `run`'s environment."""
        return functools.partial(self._ask, run)

    async def _ask(self, run: Run, **call: Any) -> Mapping[str, Any]:
        if call["dialect"] == DIALECT:
            return {} if run.left_behind is None else run.left_behind.answer(call["model"], call["body"])
        token = _asking.set(run)
        try:
            return await (await self._opened()).model(**call)
        finally:
            _asking.reset(token)

    async def _opened(self) -> HostModel:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:  # holds: one host, entered once
            if self._host is None:
                from hud.agents.hostmodel import HostModel

                host = HostModel(
                    models=self._models,
                    budget=self,
                    reserve=self.reserve,
                    record=self._record,
                    cache=self._cache,
                )
                self._host = await self._stack.enter_async_context(host)
            return self._host

    def check(self, *, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Raise `LimitError` where the asking rollout, or the job, may not spend so much more."""
        _asking.get().check_limits(tokens=tokens, cost_usd=cost_usd)

    async def reserve(
        self, *, model: str, prompt_tokens: int, output_tokens: int | None = None, shrinks: bool = False
    ) -> Reservation:
        """Hold what a grader's call may cost in the job's budget."""
        meter = _asking.get().meter
        if meter is None:
            return FREE
        return await meter.reserve(
            model=model,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            shrinks=shrinks,
            grading=True,
        )

    def _record(self, call: HostCall) -> None:
        run = _asking.get()
        run.trace.extra.setdefault("host_calls", []).append(asdict(call))
        if run.meter is not None:
            run.meter.spend(call.usage)
