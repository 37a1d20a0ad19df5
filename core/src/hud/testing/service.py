"""A small served environment for tests of what lies around one: no modules, no hooks, no sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from functools import cache
from typing import Any

from hud.errors import (
    AuthoringError,
    BadParamsError,
    HudError,
    RewardError,
    TemplateRaisedError,
    WrongStateError,
)
from hud.types import Capability, finite_score
from hud.wire.service import HostCalls

Template = Callable[..., AsyncGenerator[Any, Any]]
_CLEANUP_S = 2.0


class FakeService:
    """Serves async generator functions as templates; passes `ServiceContract` as the real environment does.

    `addresses` maps a capability's name to where it really listens (a unix socket's path, or host and port).
    """

    def __init__(
        self,
        templates: Mapping[str, Template],
        *,
        name: str = "fake",
        version: str = "1.0",
        capabilities: Sequence[Capability] = (),
        addresses: Mapping[str, tuple[str, int] | str] | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.templates: dict[str, Template] = dict(templates)
        self.capabilities: list[Capability] = list(capabilities)
        self.addresses: dict[str, tuple[str, int] | str] = dict(addresses or {})
        self.sessions: dict[str, FakeSession] = {}
        self._entries = [
            {"id": task_id, "description": template.__doc__ or "", "args": _schema(template)}
            for task_id, template in self.templates.items()
        ]

    def bindings(self) -> list[Capability]:
        """Return the manifest's capabilities."""
        return self.capabilities

    def task_entries(self) -> list[dict[str, Any]]:
        """Return the manifest's templates."""
        return self._entries

    def stream_address(self, name: str) -> tuple[str, int] | str | None:
        """Return where a capability really listens, None where its url says so."""
        return self.addresses.get(name)

    def open_session(self, session_id: str, host: HostCalls | None) -> FakeSession:
        """Make the task side of a new session."""
        session = self.sessions[session_id] = FakeSession(self, session_id, host)
        return session


class FakeSession:
    """One suspended generator. The generator runs in whichever task asks, as a small environment may do it."""

    def __init__(self, service: FakeService, session_id: str, host: HostCalls | None) -> None:
        self.host = host
        self._service = service
        self._id = session_id
        self._generator: AsyncGenerator[Any, Any] | None = None
        self._task_id = ""
        self._running: asyncio.Task[Any] | None = None
        self._cleanups: set[asyncio.Task[bool]] = set()

    @property
    def has_task(self) -> bool:
        """Whether a task is started and not yet graded or cancelled."""
        return self._generator is not None and self._running is None

    async def start(self, task_id: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Run a template to its first yield."""
        template = self._service.templates.get(task_id)
        if template is None:
            raise BadParamsError(
                -32602, f"id: no task {task_id!r}; known: {', '.join(self._service.templates)}"
            )
        _check_arguments(template, args)
        await self.cancel()
        arguments = dict(args)
        if "host" in template.__annotations__:
            arguments["host"] = self.host
        self._generator = generator = template(**arguments)
        self._task_id = task_id
        try:
            prompt = await self._run(generator.__anext__())
        except StopAsyncIteration:
            self._generator = None
            raise AuthoringError(f"template {task_id!r} ended without a first yield") from None
        except BaseException:
            await self._drop()
            raise
        return prompt if isinstance(prompt, dict) and "prompt" in prompt else {"prompt": prompt}

    async def grade(self, answer: Any) -> dict[str, Any]:
        """Send the answer in and return the reply; the generator's own cleanup has 2 s to be waited for."""
        generator = self._generator
        if generator is None or self._running is not None:
            raise WrongStateError(-32600, "no task in progress; send tasks.start first")
        try:
            reward = await self._run(generator.asend(answer))
        except StopAsyncIteration:
            self._generator = None
            raise AuthoringError(f"template {self._task_id!r} ended without a second yield") from None
        except BaseException:
            await self._drop()
            raise
        try:
            score = finite_score(float(reward) if isinstance(reward, bool) else reward)
        except RewardError:
            await self._drop()
            raise
        if await self._yields_again():
            raise AuthoringError(f"template {self._task_id!r} yields a third time")
        return {"score": score, "done": True}

    async def cancel(self) -> None:
        """Interrupt a start or grade that runs, and close the generator within 2 s."""
        running = self._running
        if running is not None:
            running.cancel()
            await asyncio.wait({running}, timeout=_CLEANUP_S)
        await self._drop()

    async def close(self) -> None:
        """End the session."""
        await self.cancel()
        self._service.sessions.pop(self._id, None)

    async def _run(self, step: Any) -> Any:
        """Await one step of the generator where `cancel` can reach it."""
        self._running = asyncio.create_task(_typed(step))
        try:
            return await self._running
        finally:
            self._running = None

    async def _yields_again(self) -> bool:
        """Resume the generator once for its own cleanup; tell whether it yielded instead of ending."""
        generator, self._generator = self._generator, None
        assert generator is not None
        return await self._cleaning(_yields(generator))

    async def _drop(self) -> None:
        generator, self._generator = self._generator, None
        if generator is not None:
            await self._cleaning(_closed(generator))

    async def _cleaning(self, work: Coroutine[Any, Any, bool]) -> bool:
        cleanup = asyncio.create_task(work)
        self._cleanups.add(cleanup)
        cleanup.add_done_callback(self._cleanups.discard)
        done, _ = await asyncio.wait({cleanup}, timeout=_CLEANUP_S)
        return bool(done) and cleanup.result()


async def _typed(step: Any) -> Any:
    """Await a step of author code; whatever it raises, `SystemExit` included, is a typed error."""
    try:
        return await step
    except (HudError, StopAsyncIteration, asyncio.CancelledError):
        raise
    except BaseException as exc:
        text = f"{type(exc).__name__}: {exc}"
        raise TemplateRaisedError(text, "".join(traceback.format_exception(exc))) from exc


async def _closed(generator: AsyncGenerator[Any, Any]) -> bool:
    with contextlib.suppress(BaseException):
        await generator.aclose()
    return False


async def _yields(generator: AsyncGenerator[Any, Any]) -> bool:
    try:
        await generator.__anext__()
    except BaseException:  # noqa: BLE001 - cleanup that fails does not change a score that is fixed
        return False
    await _closed(generator)
    return True


@cache
def _parameters(template: Template) -> dict[str, bool]:

    return {
        name: parameter.default is inspect.Parameter.empty
        for name, parameter in inspect.signature(template).parameters.items()
        if name != "host"
    }


def _schema(template: Template) -> dict[str, Any]:
    parameters = _parameters(template)
    return {
        "type": "object",
        "properties": {name: {} for name in parameters},
        "required": [name for name, required in parameters.items() if required],
        "additionalProperties": False,
    }


def _check_arguments(template: Template, args: Mapping[str, Any]) -> None:
    parameters = _parameters(template)
    for name in args:
        if name not in parameters:
            raise BadParamsError(
                -32602, f"args: no argument {name!r}; known: {', '.join(parameters) or 'none'}"
            )
    for name, required in parameters.items():
        if required and name not in args:
            raise BadParamsError(-32602, f"args: argument {name!r} is missing")
