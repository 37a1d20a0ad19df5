"""A workspace without walls, for tests: real processes in a real folder, and no isolation at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hud.capability.interfaces import CommandResult, How
from hud.types.capability import Capability

_KEPT_BYTES = 16 * 1024 * 1024


class UnconfinedWorkspace:
    """Implements `Backing`, `ContainsAgent` and `GradingShell` with subprocesses of this very user: isolation none.

    It shows what the environment asks of a workspace (`calls`) and lets tests play the agent (`start_as_agent`).
    Never give it to an agent: nothing is confined.
    """

    def __init__(
        self, root: str | Path | None = None, *, name: str = "shell", guest_root: str | None = None
    ) -> None:
        self.name = name
        self._temporary = root is None
        self.root: Path = Path(tempfile.mkdtemp(prefix="hud-unconfined-")) if root is None else Path(root)
        self.guest_root: str = guest_root or str(self.root)
        self.calls: list[str] = []
        self._agents: list[asyncio.subprocess.Process] = []

    async def start(self) -> Sequence[Capability]:
        """Make the folder; there is nothing to connect to, so nothing goes into the manifest."""
        self.calls.append("start")
        self.root.mkdir(parents=True, exist_ok=True)
        return ()

    async def stop(self) -> None:
        """End the agent's processes; remove the folder where this made it."""
        self.calls.append("stop")
        await self._end_agents()
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    async def seal(self, *, keep_agent_processes: bool) -> None:
        """End what the agent started, or keep it."""
        self.calls.append("seal, processes kept" if keep_agent_processes else "seal")
        if not keep_agent_processes:
            await self._end_agents()

    async def unseal(self) -> None:
        """Let the agent in again."""
        self.calls.append("unseal")

    @property
    def agent_pids(self) -> set[int]:
        """The processes started as the agent that have not been ended."""
        return {process.pid for process in self._agents}

    async def start_as_agent(self, command: str) -> int:
        """Start a process as an agent would; return its pid."""
        process = await asyncio.create_subprocess_shell(command, cwd=self.root, start_new_session=True)
        self._agents.append(process)
        return process.pid

    async def grading_run(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        timeout_s: float = 600.0,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes | Path] | None = None,
    ) -> CommandResult:
        """Run a command in the folder with a bare environment; `files` are written for the run and removed again."""
        self.calls.append("grading_run")
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        placed = self._place(files or {})
        try:
            return await self._run(argv, self._here(cwd), timeout_s, dict(env or {}))
        finally:
            for path in placed:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    async def _run(self, argv: list[str], cwd: Path, timeout_s: float, env: dict[str, str]) -> CommandResult:
        began = time.monotonic()
        shown = " ".join(argv)
        bare = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.root), "LANG": "C.UTF-8"}
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=cwd,
                env=bare | env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            return CommandResult(shown, 127, "", str(error), how="not_found")
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate()
        except TimeoutError:
            await _kill(process)
            return CommandResult(shown, None, "", "", how="timeout", duration_s=time.monotonic() - began)
        except asyncio.CancelledError:
            await _kill(process)
            raise
        status = process.returncode if process.returncode is not None else -1
        stdout, stderr = (part[:_KEPT_BYTES].decode(errors="replace") for part in (out, err))
        took = time.monotonic() - began
        if status < 0:
            name = signal.Signals(-status).name
            return CommandResult(shown, None, stdout, stderr, how="signalled", signal=name, duration_s=took)
        how: How = "not_found" if status == 127 else "exited"
        return CommandResult(shown, status, stdout, stderr, how=how, duration_s=took)

    def _here(self, cwd: str | None) -> Path:
        if cwd is None:
            return self.root
        inside = cwd.removeprefix(self.guest_root).lstrip("/") if cwd.startswith(self.guest_root) else cwd
        return self.root / inside

    def _place(self, files: Mapping[str, str | bytes | Path]) -> list[Path]:
        placed: list[Path] = []
        for where, content in files.items():
            path = self._here(where)
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                (shutil.copytree if content.is_dir() else shutil.copy)(content, path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            placed.append(path)
        return placed

    async def _end_agents(self) -> None:
        for process in self._agents:
            await _kill(process)
        self._agents.clear()


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    # What left the group may hold the pipes open: they are closed here, not read to their end.
    process._transport.close()  # type: ignore[attr-defined] # asyncio has no public way
    await asyncio.sleep(0)
