"""Brings an environment up and down: backings on the service's loop, hooks on the author's, in declared order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

from hud.environment.faults import author_fault
from hud.environment.tracebacks import describe
from hud.errors import HudError, PhaseTimeoutError, TemplateRaisedError

if TYPE_CHECKING:
    from hud.capability.backing import Backing
    from hud.environment.author import AuthorLoop
    from hud.environment.env import Environment
    from hud.environment.mailbox import Mailbox

log = logging.getLogger("hud.environment")

INITIALIZE_S = 300.0
"""How long one initialize hook, or the start of one backing, may take."""

BLOCKED_S = 2.0
"""An author's loop that does not turn for so long at the end runs no shutdown hook."""

Hook = Callable[[], Coroutine[Any, Any, Any]]


class Startup:
    """Runs what was declared on an environment: `up` once, then `down` once."""

    def __init__(
        self, env: Environment, author: AuthorLoop, context: Context, outbox: Mailbox, release_s: float
    ) -> None:
        self._env = env
        self._author = author
        self._context = context
        self._outbox = outbox
        self._release_s = release_s
        self._declared = tuple(env.capabilities)
        self._begun: list[Backing] = []

    async def up(self) -> None:
        """Start each backing and publish its capabilities, run each initialize hook, in order."""
        for kind, item in self._env.lifecycle:
            if kind == "backing":
                await self._start(item)
            elif kind == "initialize":
                await self._hook(item, "initialize", INITIALIZE_S)
        self._env.published = True

    async def down(self) -> list[HudError]:
        """Run shutdown hooks and stop what was started, reversed; return what failed."""
        errors: list[HudError] = []
        self._env.published = False
        answers = await self.author_answers()
        for kind, item in reversed(self._env.lifecycle):
            try:
                if kind == "backing" and item in self._begun:
                    what = f"backing {item.name!r} of environment {self._env.name!r}"
                    await _bounded(item.stop(), f"stop of {what}", self._release_s)
                elif kind == "shutdown" and not answers:
                    raise HudError(f"shutdown hook {item!r} cannot run: author code blocks its event loop")
                elif kind == "shutdown":
                    await self._hook(item, "shutdown", self._release_s)
            except Exception as raised:
                error = raised if isinstance(raised, HudError) else HudError(f"{kind}: {describe(raised)}")
                # What an author's hook raised is logged with its own traceback already.
                ours = None if isinstance(error, TemplateRaisedError) else error
                log.error("while environment %r shut down: %s", self._env.name, error, exc_info=ours)  # noqa: TRY400
                errors.append(error)
        self._env.capabilities[:] = self._declared
        return errors

    async def author_answers(self) -> bool:
        """Tell whether the author's loop turns, waiting `BLOCKED_S` at most."""
        answered: asyncio.Future[HudError | None] = self._outbox.loop.create_future()
        if not self._author.mailbox.post(self._outbox.post, _settle, answered, None):
            return False
        done, _ = await asyncio.wait([answered], timeout=BLOCKED_S)
        return bool(done)

    async def _start(self, backing: Backing) -> None:
        self._begun.append(backing)
        what = f"start of backing {backing.name!r} of environment {self._env.name!r}"
        capabilities = await _bounded(backing.start(), what, INITIALIZE_S)
        for capability in capabilities or ():
            self._env.add_capability(capability)

    async def _hook(self, hook: Hook, kind: str, seconds: float) -> None:
        code = getattr(hook, "__code__", None)
        place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
        where = f"{kind} hook {getattr(hook, '__name__', hook)!r} of environment {self._env.name!r}{place}"
        done: asyncio.Future[HudError | None] = self._outbox.loop.create_future()
        tasks: list[asyncio.Task[None]] = []
        let_go = False

        async def call() -> None:
            error: HudError | None = None
            try:
                await hook()
            except BaseException as raised:  # noqa: BLE001 - author code: typed and told to the service
                if not (let_go and isinstance(raised, asyncio.CancelledError)):
                    error = author_fault(raised, where)
            finally:
                self._outbox.post(_settle, done, error)

        def begin() -> None:
            tasks.append(self._author.loop.create_task(call(), context=self._context))

        def cancel() -> None:
            nonlocal let_go
            let_go = True
            for task in tasks:
                task.cancel()

        self._author.mailbox.post(begin)
        try:
            finished, _ = await asyncio.wait([done], timeout=seconds)
        except asyncio.CancelledError:
            self._author.mailbox.post(cancel)
            raise
        if not finished:
            self._author.mailbox.post(cancel)
            raise PhaseTimeoutError(kind, seconds, f"{where} is not done after {seconds:g} s")
        error = done.result()
        if error is not None:
            raise error


async def _bounded(work: Awaitable[Any], what: str, seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise PhaseTimeoutError("initialize", seconds, f"{what} is not done after {seconds:g} s") from error


def _settle(future: asyncio.Future[HudError | None], error: HudError | None) -> None:
    if not future.done():
        future.set_result(error)
