"""The shell of a workspace for code that runs beside its server: templates and graders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from hud.capability.interfaces import CommandResult
from hud.errors import SandboxError
from hud_capability_ssh.client import DEFAULT_TIMEOUT_S, LARGEST_READ
from hud_capability_ssh.errors import CommandFailedError
from hud_capability_ssh.inside import run_inside
from hud_capability_ssh.loops import on_loop
from hud_capability_ssh.shell_session import KILL_YOUNGER, SSHShellSession

if TYPE_CHECKING:
    from hud_capability_ssh.sandbox import Child, Sandbox

T = TypeVar("T")
TICKS = os.sysconf("SC_CLK_TCK")


class InsideShell:
    """Implements `Shell` on one sandbox, without ssh. Made by `Workspace.shell()`; usable from any loop.

    Files are found as a process inside would find them: no link leads out.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.cwd = sandbox.spec.guest_path
        self.output_bytes = sandbox.spec.limits.output_bytes

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
        check: bool = False,
    ) -> CommandResult:
        """Run a command to its end; 120 s unless told."""
        seconds = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        at = None if cwd is None else self._at(cwd)
        result = await on_loop(
            self._sandbox.link.loop,
            run_inside(self._sandbox, command, timeout_s=seconds, cwd=at, env=env, input=input),
        )
        if check and not result.ok:
            raise CommandFailedError(result)
        return result

    async def session(self) -> InsideSession:
        """Start a shell that stays."""
        session = SSHShellSession(_Connection(self._sandbox, self.cwd, self.output_bytes))
        await on_loop(self._sandbox.link.loop, session.start())
        return InsideSession(session, self._sandbox.link.loop)

    async def read_bytes(self, path: str) -> bytes:
        """Return a file's content; `FileNotFoundError`, `IsADirectoryError`, `PermissionError` as the OS says."""
        return await on_loop(self._sandbox.link.loop, self._read(path))

    async def _read(self, path: str) -> bytes:
        fd = await self._sandbox.open(path, os.O_RDONLY)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(21, "is a folder", path)
            if found.st_size > LARGEST_READ:
                raise OSError(27, f"{found.st_size} bytes are too many to read at once", path)
            return await asyncio.to_thread(file.read)

    async def read_text(self, path: str) -> str:
        """Return a file's content as UTF-8, undecodable bytes replaced."""
        return (await self.read_bytes(path)).decode("utf-8", "replace")

    async def write_bytes(self, path: str, content: bytes) -> None:
        """Write a file, making its folder where it is missing."""
        await on_loop(self._sandbox.link.loop, self._write(path, content))

    async def _write(self, path: str, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            fd = await self._sandbox.open(path, flags)
        except FileNotFoundError:
            folder = os.fsencode(self._at(path)).rpartition(b"/")[0]
            await self._sandbox.change("makedirs", folder, 0o777, True)
            fd = await self._sandbox.open(path, flags)
        with os.fdopen(fd, "wb") as file:
            await asyncio.to_thread(file.write, content)

    async def write_text(self, path: str, content: str) -> None:
        """Write a file as UTF-8."""
        await self.write_bytes(path, content.encode("utf-8", "surrogateescape"))

    async def listdir(self, path: str = ".") -> list[str]:
        """Return the names in a folder, sorted."""
        return sorted(
            name for name, _ in await on_loop(self._sandbox.link.loop, self._sandbox.names(self._at(path)))
        )

    def _at(self, path: str) -> str:
        return path if path.startswith("/") else f"{self.cwd}/{path}"


class InsideSession:
    """A session that may be used from any loop."""

    def __init__(self, session: SSHShellSession, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._loop = loop

    async def run(self, command: str, *, timeout_s: float | None = None) -> CommandResult:
        """Run one command."""
        return await on_loop(self._loop, self._session.run(command, timeout_s=timeout_s))

    async def restart(self) -> None:
        """Begin anew, ending what the session started."""
        await on_loop(self._loop, self._session.restart())

    async def close(self) -> None:
        """End the session and what it started."""
        await on_loop(self._loop, self._session.close())


class _Connection:
    """What a session asks of its client, over pipes instead of a channel."""

    def __init__(self, sandbox: Sandbox, cwd: str, output_bytes: int) -> None:
        self._sandbox = sandbox
        self.cwd = cwd
        self.output_bytes = output_bytes

    def composed(self, command: str, cwd: str | None, env: Mapping[str, str] | None) -> str:  # noqa: ARG002
        import shlex

        return command if cwd is None else f"cd -- {shlex.quote(cwd)} || exit 1\n{command}"

    async def connection(self) -> _Connection:
        return self

    async def create_session(self, factory: Callable[[], Any], command: str, **_: Any) -> tuple[_Pipes, Any]:
        session = factory()
        return _Pipes(await self._sandbox.spawn(command), session), session


class _Pipes:
    """A child's pipes behind the few calls of a channel that a session makes."""

    def __init__(self, child: Child, session: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._session = session
        self._ticks = 1
        self._input = b""
        self._work: set[asyncio.Task[None]] = set()
        for fd, kind in ((child.stdout, None), (child.stderr, 1)):
            self._loop.add_reader(fd, self._read, fd, kind)
        self._own(self._watch())

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    def write(self, data: bytes) -> None:
        self._ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
        self._input += data
        self._feed()

    def _feed(self) -> None:
        if self._child.stdin < 0:
            return
        self._loop.remove_writer(self._child.stdin)
        try:
            while self._input:
                self._input = self._input[os.write(self._child.stdin, self._input) :]
        except BlockingIOError:
            self._loop.add_writer(self._child.stdin, self._feed)
        except OSError:
            self._input = b""

    def send_signal(self, name: str) -> None:
        self._own(self._kill(max(1, self._ticks) if name == KILL_YOUNGER else 0))

    async def _kill(self, since_ticks: int) -> None:
        with contextlib.suppress(OSError, SandboxError):  # it has ended
            await self._child.kill(since_ticks)

    def abort(self) -> None:
        self._finish()

    async def _watch(self) -> None:
        status, number = await self._child.wait()
        if number:
            self._session.exit_signal_received("KILL", False, "", "")
        else:
            self._session.exit_status_received(status)
        self._finish()

    def _read(self, fd: int, kind: int | None) -> None:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        if data:
            self._session.data_received(data, kind)
        else:
            self._loop.remove_reader(fd)

    def _finish(self) -> None:
        child = self._child
        if child.stdout < 0:
            return
        self._loop.remove_writer(child.stdin)
        os.close(child.stdin)
        for fd, kind in ((child.stdout, None), (child.stderr, 1)):
            self._loop.remove_reader(fd)
            child.sandbox.drain(fd, lambda data, kind=kind: self._session.data_received(data, kind))  # type: ignore[misc]
        child.stdin = child.stdout = child.stderr = -1
        self._session.connection_lost(None)
