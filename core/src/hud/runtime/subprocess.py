"""`SubprocessRuntime`: a fresh Python process for each rollout, nothing forked, nothing shared."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hud.cleanup import shielded
from hud.errors import RuntimeStartError, SourceError
from hud.runtime import linux
from hud.runtime.able import require
from hud.runtime.contract import Features, Runtime
from hud.runtime.importing import forbid_while_importing
from hud.runtime.output import OUTPUT
from hud.runtime.project import resolved_source
from hud.runtime.secrets import child_environment, given_variables

if TYPE_CHECKING:
    from hud.types import Task

ANNOUNCEMENT = "HUD_SERVE_PORT="
STOP_GRACE_S = 10.0
_KEEPER = "import sys; from hud.runtime.keeper import keep_command; keep_command(sys.argv[1:])"


class SubprocessRuntime:
    """Run each rollout's environment in a Python process started for it: `python -m hud.environment.server`.

    For modules that cannot be forked, and for systems without fork's guarantees. Slower to start than
    `LocalRuntime` by the import of the environment, and without views: every rollout sees the project itself.
    The process works in the source's folder, serves on a loopback port behind a token, and goes with all it
    started when the rollout or its orchestrator ends.

    Args:
        source: A declaration file or folder, or an `Environment` declared in a file.
        env: Which environment, where a file defines several.
        ready_timeout: Seconds from the start to serving.
        env_vars: Variables to pass on although they hold secrets, or a mapping of variables to set.
    """

    features: ClassVar[Features] = Features()

    def __init__(
        self,
        source: str | Path | Any,
        *,
        env: str | None = None,
        ready_timeout: float = 120.0,
        env_vars: Iterable[str] | Mapping[str, str] = (),
    ) -> None:
        if not isinstance(source, (str, Path)):
            file = getattr(source, "source_file", None)
            if file is None:
                raise SourceError(f"{source!r} was declared in no file; SubprocessRuntime needs one to start")
            env = env or source.name
            source = file
        self.source = source
        self.env = env
        self.ready_timeout = ready_timeout
        self.env_vars: dict[str, str] | tuple[str, ...] = given_variables(env_vars)

    def __repr__(self) -> str:
        return f"SubprocessRuntime({str(self.source)!r})"

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
        """Place `task`'s environment; see `Provider`."""
        require(self.features, task.runtime_config, "SubprocessRuntime")
        forbid_while_importing(self.source)
        limits = task.runtime_config.limits if task.runtime_config else None
        timeout_s = (limits.startup_timeout_s if limits else None) or self.ready_timeout
        source = resolved_source(self.source)
        token = secrets.token_hex(32)
        process = await start_process(
            _server_command(source.text, self.env),
            folder=source.folder,
            environ={**child_environment(self.env_vars), "HUD_TOKEN": token},
            output=OUTPUT.get(),
            name=source.place.name,
        )
        try:
            try:
                async with asyncio.timeout(timeout_s):
                    port = await process.announced()
            except TimeoutError:
                text = f"{self.source} did not serve within {timeout_s:g} s"
                raise RuntimeStartError(process.with_output(text)) from None
            params = {"token": token, "process": process, "ready_timeout": timeout_s}
            yield Runtime(f"tcp://127.0.0.1:{port}", params=params, config=task.runtime_config)
        finally:
            await shielded(process.stop(STOP_GRACE_S))


class ServerProcess:
    """A started server: its announcement, its output, its end."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path | None, name: str) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=50)
        self._process = process
        self._output = output
        self._port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.get_running_loop().create_task(self._read(), name=f"output of {name}")

    @property
    def pid(self) -> int:
        """The number of the process that was started."""
        return self._process.pid

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        return self._process.returncode is not None

    async def announced(self) -> int:
        """Return the port once it is announced; raises `RuntimeStartError` where the process ends before."""
        await asyncio.wait((self._port, self._reader), return_when=asyncio.FIRST_COMPLETED)
        if not self._port.done():
            await self._process.wait()
            raise RuntimeStartError(self.obituary())
        return self._port.result()

    async def died(self) -> str:
        """Return, once the process has ended, how, with its last output lines."""
        await self._process.wait()
        return self.obituary()

    def obituary(self) -> str:
        """Say how the process ended."""
        from hud.runtime.process import how_it_ended

        code = self._process.returncode
        if code is not None and code > 128:
            code = 128 - code
        return self.with_output(f"environment process {self.pid} of {self.name} {how_it_ended(code)}")

    def with_output(self, text: str) -> str:
        """Return `text` with the last output lines."""
        tail = "\n".join(self.lines)
        return f"{text}; its last output:\n{tail}" if tail else f"{text}; it printed nothing"

    async def stop(self, grace_s: float) -> None:
        """Have it stop, kill it after `grace_s` seconds."""
        if not self.dead:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s if self._port.done() else 0.0):
                    await self._process.wait()
            if not self.dead:
                self._signal(signal.SIGKILL)
                await self._process.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.shield(self._reader)
        self._reader.cancel()
        await asyncio.wait((self._reader,))
        self._port.cancel()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(self._output.open("ab")) if self._output else None
            async for chunk in _lines(self._process.stdout):
                if file is not None:
                    file.write(chunk)
                    file.flush()
                line = chunk.decode(errors="replace").rstrip("\n")
                if line.startswith(ANNOUNCEMENT) and not self._port.done():
                    self._port.set_result(int(line.removeprefix(ANNOUNCEMENT)))
                else:
                    self.lines.append(line[:2000])


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield lines; one of more than 64 KiB comes in pieces."""
    while True:
        try:
            chunk = await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                yield error.partial
            return
        except asyncio.LimitOverrunError as error:
            chunk = await stream.readexactly(error.consumed)
        yield chunk


def _server_command(source: str, env: str | None) -> list[str]:
    server = [sys.executable, "-m", "hud.environment.server", source, "--host", "127.0.0.1", "--port", "0"]
    return [*server, "--env", env] if env else server


async def start_process(
    argv: list[str], *, folder: Path, environ: Mapping[str, str], output: Path | None, name: str
) -> ServerProcess:
    """Start a server in a session of its own; on Linux under a keeper that ends it with this process."""
    kept = [sys.executable, "-P", "-c", _KEEPER, *argv] if linux.available() else argv
    environ = {"PYTHONUNBUFFERED": "1", **environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *kept,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as error:
        raise RuntimeStartError(f"cannot start {argv[0]}: {error.strerror}") from error
    return ServerProcess(process, output, name)
