"""Serving one environment to many sessions, each in a process of its own: what `hud serve --isolate` does.

The wire (sessions, parking, tokens, deadlines) is served by a process that never imports author code. A session's
environment, with its hooks, its capabilities and its view of the project, is a `LocalRuntime` placement.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.errors import BadParamsError, ConnectionLostError, RuntimeFault, WireError
from hud.runtime import folders
from hud.runtime.held import HeldPlacement
from hud.runtime.local import LocalRuntime
from hud.runtime.output import OUTPUT
from hud.types import Task

if TYPE_CHECKING:
    from hud.types import Capability
    from hud.wire.client import HudClient
    from hud.wire.service import HostCalls

SHOWN_BYTES = 64 * 1024
"""How much of what a session's process printed is shown once it has ended, from its end."""
_FOREVER_S = 365 * 24 * 3600.0  # the peer's deadlines count, not ours


@asynccontextmanager
async def isolated(source: str, *, env: str | None = None) -> AsyncIterator[IsolatedService]:
    """Yield what serves `source`, once its first process has run its initialize hooks.

    The processes have this one's variables: unlike those of a job they may hold the keys that graders need.
    """
    service = IsolatedService(LocalRuntime(source, env=env, env_vars=dict(os.environ)))
    async with service.runtime:
        try:
            await service.start()
            yield service
        finally:
            await service.stop()


class IsolatedService:
    """Implements `hud.wire.service.Service`. One process is kept ready ahead of the next session."""

    places_sessions = True

    def __init__(self, runtime: LocalRuntime) -> None:
        self.runtime = runtime
        self.name: str = ""
        self.version: str = ""
        self._bindings: list[Capability] = []
        self._entries: list[dict[str, Any]] = []
        self._spare: _Process | None = None
        self._numbers = itertools.count(1)
        self._folder: Path | None = None
        self._sessions: set[IsolatedSession] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Make the first process, and learn from it what it serves; raises what its start raised."""
        from hud.wire.client import HudClient, connect

        self._folder = folders.make_owned(folders.runtime_root())
        self._spare = process = self._process()
        async with connect(await process.held.ready()) as client:
            assert isinstance(client, HudClient)
            self.name, self.version = client.manifest.server_info.name, client.manifest.server_info.version
            self._bindings = client.manifest.bindings
            self._entries = await client.list_tasks()
            await client.bye()

    async def stop(self) -> None:
        """End every process."""
        for session in list(self._sessions):
            self._close_later(session.close())
        spare, self._spare = self._spare, None
        if spare is not None:
            self._close_later(spare.close())
        if self._closing:
            await asyncio.wait(self._closing)
        if self._folder is not None:
            folders.remove(self._folder)

    def bindings(self) -> list[Capability]:
        """Return the capabilities of the first process; every session has its own behind the same names."""
        return self._bindings

    def task_entries(self) -> list[dict[str, Any]]:
        """Return the templates."""
        return self._entries

    def open_session(self, session_id: str, host: HostCalls | None) -> IsolatedSession:  # noqa: ARG002
        """Make a session; it has no process before `place`."""
        session = IsolatedSession(self, host)
        self._sessions.add(session)
        return session

    def forget(self, session: IsolatedSession) -> None:
        """Count a session no more."""
        self._sessions.discard(session)

    def take(self) -> _Process:
        """Return the process that is ready, or a new one, and have another made for the next session."""
        process, self._spare = self._spare, None
        if process is not None and (process.held.failed or process.held.ended):
            self._close_later(process.close())
            process = None
        process = process or self._process()
        self._spare = self._process()
        return process

    def _process(self) -> _Process:
        assert self._folder is not None
        return _Process(self.runtime, self.name or "env", self._folder / f"{next(self._numbers)}.log")

    def _close_later(self, closing: Any) -> None:
        task = asyncio.get_running_loop().create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class IsolatedSession:
    """Implements `hud.wire.service.PlacedSession`: a process, and this one's client of it."""

    def __init__(self, service: IsolatedService, host: HostCalls | None) -> None:
        self._service = service
        self._host = host
        self._has_task = False
        self._closed = False
        self._process: _Process | None = None
        self._client: HudClient | None = None
        self._placing: asyncio.Task[HudClient] | None = None

    @property
    def has_task(self) -> bool:
        """Whether a task is started and not yet graded or cancelled; that of a process that died is still asked for."""
        return self._has_task

    async def place(self, egress: Mapping[str, Any]) -> None:
        """Give the session its process; see `hud.wire.service.PlacedSession`."""
        if self._placing is not None and egress:
            raise BadParamsError(
                -32602, f"{next(iter(egress))} belong to the hello that opens a session; leave it empty"
            )
        await self._placed(egress)

    async def _placed(self, egress: Mapping[str, Any] | None = None) -> HudClient:
        if self._closed:
            raise ConnectionLostError("this session has ended")
        if self._placing is None:
            self._placing = asyncio.get_running_loop().create_task(self._place(egress or {}))
        return await asyncio.shield(self._placing)

    async def _place(self, egress: Mapping[str, Any]) -> HudClient:
        from hud.wire.client import HudClient
        from hud.wire.settings import ClientSettings

        process = self._process = self._service.take()
        runtime = await process.held.ready()
        host_model = self._host.model if self._host is not None else None
        settings = ClientSettings(start_s=_FOREVER_S, grade_s=_FOREVER_S)
        client = self._client = HudClient(
            runtime.url, runtime.params, host_model=host_model, settings=settings
        )
        await client.become_ready(settings.ready_s, asking=egress)
        return client

    def bindings(self) -> list[Capability]:
        """Return the capabilities of this session's process."""
        return self._client.manifest.bindings if self._client is not None else self._service.bindings()

    async def open_stream(self, name: str) -> socket.socket:
        """Connect to a capability of this session's process."""
        from hud.wire.streams import TunnelOpener
        from hud.wire.transports import opener_for

        await self._placed()
        assert self._process is not None
        runtime = await self._process.held.ready()
        opener = TunnelOpener(runtime.url, runtime.params, opener_for(runtime.url, runtime.params), name)
        return await opener.open_socket()

    async def start(self, task_id: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Run the template to its first yield, in the process."""
        client = await self._placed()
        before, self._has_task = self._has_task, True
        try:
            return await client.start_task(task_id, args)
        except BadParamsError:
            self._has_task = before  # it was refused: the task before goes on
            raise
        except BaseException:
            self._has_task = False
            raise

    async def grade(self, answer: Any) -> dict[str, Any]:
        """Send the answer in and return the score's reply.

        Raises:
            RuntimeDiedError: the process ended; says how.
        """
        try:
            return await (await self._placed()).grade({"answer": answer})
        finally:
            self._has_task = False

    async def cancel(self) -> None:
        """Interrupt what runs; nothing of a process that ended is left to interrupt."""
        self._has_task = False
        if self._client is not None:
            try:
                await self._client.cancel()
            except (RuntimeFault, ConnectionLostError):
                return

    async def cleaned(self, seconds: float) -> list[str]:
        """Say goodbye to the process, which tells what failed in its cleanups."""
        client = self._client
        try:
            return [] if client is None else await client.bye(cleanup_s=seconds)
        except (RuntimeFault, WireError) as error:
            return [str(error)]

    async def close(self) -> None:
        """End the process with all that belongs to it."""
        self._closed = True
        self._has_task = False
        self._service.forget(self)
        if self._placing is not None and not self._placing.done():
            self._placing.cancel()
            await asyncio.wait((self._placing,))
        client, self._client = self._client, None
        process, self._process = self._process, None
        try:
            if client is not None:
                await client.close()
        finally:
            if process is not None:
                await process.close()


class _Process:
    """A placement and what its process prints, which is shown on our standard error once it has ended."""

    def __init__(self, runtime: LocalRuntime, env: str, log: Path) -> None:
        self.log = log
        before = OUTPUT.set(log)
        try:
            self.held = HeldPlacement(runtime, Task(env=env, id="session"))
        finally:
            OUTPUT.reset(before)

    async def close(self) -> None:
        """End it, and show what it printed."""
        try:
            await self.held.close()
        finally:
            try:
                with self.log.open("rb") as file:
                    file.seek(max(0, self.log.stat().st_size - SHOWN_BYTES))
                    text = file.read().decode(errors="replace")
            except FileNotFoundError:
                text = ""
            else:
                self.log.unlink()
            if text:
                print(text, end="" if text.endswith("\n") else "\n", file=sys.stderr, flush=True)
