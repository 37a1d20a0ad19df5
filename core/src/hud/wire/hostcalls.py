"""Host calls: an environment's grader asks the client's side for what needs its keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from hud.errors import ConnectionLostError, HudProtocolError
from hud.wire.faults import wrong_state
from hud.wire.frames import UNKNOWN_METHOD

if TYPE_CHECKING:
    from hud.wire.session import Session

HostModel = Callable[..., Awaitable[Mapping[str, Any]]]
"""`async (*, dialect, model, body, deadline_s) -> reply`, given to `connect(host_model=...)`."""

FEATURE = "host_calls"


class SessionHost:
    """The environment's end: sends `host.model` to whichever connection its session has.

    A call outlives a dropped connection: it is sent again once the session is resumed, within its deadline.
    Call it from any loop; it moves itself to the one that serves the wire.
    """

    __slots__ = ("_loop", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()

    async def model(
        self, *, dialect: str, model: str, body: Mapping[str, Any], deadline_s: float
    ) -> dict[str, Any]:
        """Return the provider's reply, waiting `deadline_s` seconds at most; see `hud.wire.service.HostCalls`."""
        params = {"dialect": dialect, "model": model, "body": dict(body), "deadline_s": deadline_s}
        call = self._call("host.model", params, deadline_s)
        if asyncio.get_running_loop() is self._loop:
            return await call
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._loop))

    async def _call(self, method: str, params: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
        session = self._session
        if session.operation is None:
            raise wrong_state("host calls are made while tasks.start or tasks.grade runs, not between them")
        try:
            async with asyncio.timeout(min(deadline_s, session.table.settings.host_call_s)):
                while True:
                    connection = await session.connected()
                    if FEATURE not in connection.features:
                        raise HudProtocolError(
                            UNKNOWN_METHOD, "the client answers no host calls; set the grader's own variables"
                        )
                    try:
                        reply = await connection.ask(method, params)
                    except ConnectionLostError:
                        continue
                    if not isinstance(reply, dict):
                        raise HudProtocolError(
                            -32603, f"{method} was answered with no object: {reply!r:.200}"
                        )
                    return reply
        except TimeoutError:
            raise HudProtocolError(
                -32000, f"{method} was not answered within {deadline_s:g} s", {"type": "TimeoutError"}
            ) from None


class LocalHost:
    """Host calls of an environment served in this process: the client's callable itself."""

    __slots__ = ("_answer", "_loop")

    def __init__(self, answer: HostModel) -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()

    async def model(
        self, *, dialect: str, model: str, body: Mapping[str, Any], deadline_s: float
    ) -> dict[str, Any]:
        """Return the provider's reply; see `hud.wire.service.HostCalls`."""
        call = self._ask(dialect, model, body, deadline_s)
        if asyncio.get_running_loop() is self._loop:
            return await call
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._loop))

    async def _ask(
        self, dialect: str, model: str, body: Mapping[str, Any], deadline_s: float
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(deadline_s):
                reply = await self._answer(dialect=dialect, model=model, body=body, deadline_s=deadline_s)
        except TimeoutError:
            raise HudProtocolError(-32000, f"host.model was not answered within {deadline_s:g} s") from None
        return dict(reply)
