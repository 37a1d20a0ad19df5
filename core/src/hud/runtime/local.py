"""`LocalRuntime`: a process of its own for each rollout, forked from a zygote; or served in this process."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from hud.cleanup import shielded
from hud.errors import RuntimeStartError
from hud.runtime import folders, linux
from hud.runtime.able import require
from hud.runtime.contract import Features, Runtime
from hud.runtime.gate import gate
from hud.runtime.importing import forbid_while_importing
from hud.runtime.output import OUTPUT
from hud.runtime.process import ZygoteGoneError, with_output
from hud.runtime.project import resolved_source
from hud.runtime.secrets import child_environment, given_variables

if TYPE_CHECKING:
    from hud.environment.env import Environment
    from hud.runtime.process import LocalProcess
    from hud.runtime.zygotes import ZygoteHandle, ZygoteKey
    from hud.types import Task

STOP_GRACE_S = 10.0


class LocalRuntime:
    """Run each rollout's environment on this machine.

    `source` is the path of a declaration file or a folder, a live `Environment`, or a `(task) -> Environment`
    constructor. A path is imported once, in a process of its own, and forked for each rollout: the rollout's
    process serves on a socket that only this user can reach, sees a copy-on-write view of the project
    (`view="private"`), and is gone with all it started when the rollout ends. A live environment or a
    constructor is served in this process, without a socket.

    Args:
        source: What to serve.
        env: Which environment, where a file defines several.
        ready_timeout: Seconds from the fork, or from the first import, to serving.
        view: `"shared"` lets every rollout write to the project itself.
        keep: Keep what rollouts wrote over the project: those that failed, all, or none (None).
        env_vars: Variables to pass on although they hold secrets (`HUD_*`, keys of model providers), or a
            mapping of variables to set.
        transport: `"tcp"` for clients that cannot use a unix socket.
    """

    features: ClassVar[Features] = Features()

    def __init__(
        self,
        source: str | Path | Environment | Callable[..., Any],
        *,
        env: str | None = None,
        ready_timeout: float = 120.0,
        view: Literal["private", "shared"] = "private",
        keep: Literal["failed", "all"] | None = None,
        env_vars: Iterable[str] | Mapping[str, str] = (),
        transport: Literal["unix", "tcp"] = "unix",
    ) -> None:
        self.source = source
        self.env = env
        self.ready_timeout = ready_timeout
        self.view = view
        self.keep = keep
        self.env_vars: dict[str, str] | tuple[str, ...] = given_variables(env_vars)
        self.transport = transport
        self._told: set[str] = set()
        self._held: Any = None

    def __repr__(self) -> str:
        return f"LocalRuntime({str(self.source)!r})" if self.is_file else f"LocalRuntime({self.source!r})"

    @property
    def is_file(self) -> bool:
        """Whether rollouts get processes of their own."""
        return isinstance(self.source, (str, Path))

    async def __aenter__(self) -> Self:
        """Keep what rollouts share (the zygote, or the environment served here) until the end of the block."""
        if self.is_file:
            resolved_source(str(self.source))  # a missing one is told once, before any rollout
        else:
            from hud.runtime.inprocess import held_here

            self._held = held_here(self.source)
            await self._held.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        held, self._held = self._held, None
        if held is not None:
            await held.__aexit__(*exc)
        elif self.is_file:
            from hud.runtime import zygote_table

            zygote_table.end(self.key())

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
        """Place `task`'s environment; see `Provider`."""
        require(self.features, task.runtime_config, "LocalRuntime")
        if not self.is_file:
            from hud.runtime.inprocess import served_here

            async with served_here(self.source, task) as runtime:
                yield runtime
            return
        if not linux.available():
            from hud.runtime.subprocess import SubprocessRuntime

            other = SubprocessRuntime(
                str(self.source), env=self.env, ready_timeout=self.ready_timeout, env_vars=self.env_vars
            )
            async with other(task) as runtime:
                yield runtime
            return
        forbid_while_importing(self.source)
        limits = task.runtime_config.limits if task.runtime_config else None
        timeout_s = (limits.startup_timeout_s if limits else None) or self.ready_timeout
        async with gate.admitted(timeout_s), self._placed(task, timeout_s) as runtime:
            yield runtime

    @asynccontextmanager
    async def _placed(self, task: Task, timeout_s: float) -> AsyncIterator[Runtime]:
        token = secrets.token_hex(32)
        zygote, process = await self._start(token, timeout_s)
        failed = True
        try:
            params = {"token": token, "process": process, "ready_timeout": timeout_s, "log": str(process.log)}
            yield Runtime(process.url or "", params=params, config=task.runtime_config)
            failed = process.dead
        finally:
            try:
                await shielded(self._end(process, failed=failed))
            finally:
                zygote.release()

    async def _start(self, token: str, timeout_s: float) -> tuple[ZygoteHandle, LocalProcess]:
        from hud.runtime import zygote_table

        while True:
            zygote = await zygote_table.lease(self.key(), timeout_s, self._tell)
            try:
                return zygote, await self._child(zygote, token, timeout_s)
            except ZygoteGoneError:
                # It ended between the look at it and the request: it was idle for long, or was killed.
                zygote_table.retire(zygote)
                zygote.release()
                if zygote.proved:
                    continue
                raise
            except BaseException:
                zygote.release()
                raise

    async def _child(self, zygote: ZygoteHandle, token: str, timeout_s: float) -> LocalProcess:
        async with zygote.starting():
            process = await zygote.start_child(self._request(zygote, token), OUTPUT.get())
            await self._unless_late(process, process.begun(), timeout_s)
        await self._unless_late(process, process.ready(), timeout_s)
        zygote.proved = True
        return process

    async def _unless_late(
        self, process: LocalProcess, step: Coroutine[Any, Any, object], timeout_s: float
    ) -> None:
        """Await a step of a child's start; end the child where it fails or takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await step
        except TimeoutError:
            late = with_output(f"{self.source} did not serve within {timeout_s:g} s", process.log)
            await shielded(self._end(process, failed=True))
            raise RuntimeStartError(late) from None
        except BaseException:
            await shielded(self._end(process, failed=True))
            raise

    def _request(self, zygote: ZygoteHandle, token: str) -> dict[str, Any]:
        view = {
            "engine": self.view,
            "root": str(zygote.project),
            "visible": [str(zygote.folder)],
            "keep": self.keep is not None,
            "roots": zygote.roots,
        }
        folder = str(zygote.key.source.folder)
        return {"token": token, "transport": self.transport, "folder": folder, "view": view}

    def key(self) -> ZygoteKey:
        """Return what decides which zygote this runtime's rollouts are forked from."""
        from hud.runtime.zygotes import ZygoteKey

        source = resolved_source(str(self.source))
        return ZygoteKey(source, self.env, tuple(sorted(child_environment(self.env_vars).items())))

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            print(f"hud: {text}", file=sys.stderr)

    async def _end(self, process: LocalProcess, *, failed: bool) -> None:
        """End a child and remove what it left, unless that is to be kept."""
        await process.stop(STOP_GRACE_S)
        process.close()
        wanted = self.keep == "all" or (self.keep == "failed" and (failed or process.kept))
        for folder in process.written:
            if folder.exists():
                if wanted:
                    kept = await asyncio.to_thread(folders.keep, folder)
                    print(f"hud: what the rollout wrote is kept in {kept}", file=sys.stderr)
                else:
                    await asyncio.to_thread(folders.remove, folder)
        for path in process.own_files:
            path.unlink(missing_ok=True)
