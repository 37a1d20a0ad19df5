"""Run a grader's command on what an agent left: in a sandbox of its own, with files the agent never saw."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from signal import SIGCONT, SIGSTOP
from typing import TYPE_CHECKING

from hud.capability.interfaces import CommandResult
from hud_capability_ssh import bubblewrap, landlock
from hud_capability_ssh.inside import run_inside
from hud_capability_ssh.loopback import Relay
from hud_capability_ssh.mount_points import mount_points, opened_below
from hud_capability_ssh.sandbox import Sandbox

if TYPE_CHECKING:
    from hud_capability_ssh.egress import Egress
    from hud_capability_ssh.spec import SandboxSpec

HOME = "/tmp/grader"  # noqa: S108 - inside the sandbox, empty memory: no start-up file of the agent's is found
Files = Mapping[str, bytes | Path]


async def grade_inside(
    spec: SandboxSpec,
    engine: str,
    command: str | Sequence[str],
    *,
    cwd: str | None,
    timeout_s: float,
    env: Mapping[str, str] | None,
    files: Files,
    beside: Sequence[Sandbox] = (),
    agent: Sandbox | None = None,
    egress: Egress | None = None,
) -> CommandResult:
    """Run one command; `files` are at their guest paths, read-only, for it alone.

    Ports that listen in the sandboxes `beside` answer on this one's loopback. With `agent`, whose processes live on,
    the workspace is read-only, and they stand still while the sandbox is made.

    Raises:
        SandboxError: the sandbox could not be made, or ended.
    """
    async with AsyncExitStack() as stack:
        if engine == bubblewrap.NAME:
            sandbox = await stack.enter_async_context(_mounted(spec, engine, files, agent))
        else:
            sandbox, words = await stack.enter_async_context(_copied(spec, engine, files, agent))
            command = _respelled(command, words)
        if egress is not None and engine != landlock.NAME:
            sandbox.servers += await egress.open(sandbox)
        for other in beside:
            relay = Relay(other, sandbox)
            await relay.start()
            stack.push_async_callback(relay.close)
        return await run_inside(sandbox, command, cwd=cwd, env=env, timeout_s=timeout_s)


@asynccontextmanager
async def _mounted(
    spec: SandboxSpec, engine: str, files: Files, agent: Sandbox | None
) -> AsyncIterator[Sandbox]:
    inside = [(at, data) for at, data in files.items() if PurePosixPath(at).is_relative_to(spec.guest_path)]
    wanted = [
        (str(PurePosixPath(at).relative_to(spec.guest_path)), isinstance(data, Path) and data.is_dir())
        for at, data in inside
    ]
    async with AsyncExitStack() as stack:
        if agent is not None:
            await agent.link.ask("everything", int(SIGSTOP))
        try:
            stack.enter_context(mount_points(str(spec.root), wanted, spec.owner))
            sandbox = await Sandbox.start(replace(spec, files=files), engine)
        finally:
            if agent is not None:
                await agent.link.ask("everything", int(SIGCONT))
        stack.push_async_callback(sandbox.close)
        yield sandbox


@asynccontextmanager
async def _copied(
    spec: SandboxSpec, engine: str, files: Files, agent: Sandbox | None
) -> AsyncIterator[tuple[Sandbox, dict[str, str]]]:
    """Without mounts: files go into a folder that only this process writes, and the command's words lead there.

    Those below the workspace are put into it for as long, in place of what the agent left there.
    """
    sandbox = await Sandbox.start(spec, engine)
    words: dict[str, str] = {}
    stack = ExitStack()
    try:
        assert sandbox.spec.box is not None
        for number, (at, data) in enumerate(files.items()):
            if PurePosixPath(at).is_relative_to(spec.root) and agent is None:
                below = PurePosixPath(at).relative_to(spec.root)
                await asyncio.to_thread(stack.enter_context, _in_place(data, str(spec.root), below))
            else:
                to = sandbox.spec.box.path / "files" / str(number)
                await asyncio.to_thread(_put, data, to)
                words[at] = str(to)
        yield sandbox, words
    finally:
        await sandbox.close()
        await asyncio.to_thread(stack.close)


@contextmanager
def _in_place(data: bytes | Path, root: str, path: PurePosixPath) -> Iterator[None]:
    """Have a grader's file or folder at its path while the context lasts; what the agent left there comes back.

    Its folder is held open: what the grader's command puts in the way leads nowhere else.
    """
    aside = f".hud-{secrets.token_hex(8)}"
    folders = [(str(path.parent), True)] if path.parent.parts else []
    with mount_points(root, folders, None), opened_below(root, path.parent.parts) as folder:
        with suppress(FileNotFoundError):
            os.rename(path.name, aside, src_dir_fd=folder, dst_dir_fd=folder)
        try:
            _put(data, Path(f"/proc/self/fd/{folder}/{path.name}"))
            yield
        finally:
            with suppress(FileNotFoundError):
                _remove(path.name, folder)
            with suppress(FileNotFoundError):
                os.rename(aside, path.name, src_dir_fd=folder, dst_dir_fd=folder)


def _remove(name: str, folder: int) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        shutil.rmtree(name, dir_fd=folder, ignore_errors=True)
    else:
        os.unlink(name, dir_fd=folder)


def _put(data: bytes | Path, to: Path) -> None:
    if isinstance(data, bytes):
        to.write_bytes(data)
    elif data.is_dir():
        shutil.copytree(data, to)
    else:
        shutil.copyfile(data, to)
    for folder, _, names in os.walk(to):
        Path(folder).chmod(0o755)
        for name in names:
            Path(folder, name).chmod(0o644)
    if to.is_file():
        to.chmod(0o644)


def _respelled(command: str | Sequence[str], words: Mapping[str, str]) -> str | Sequence[str]:
    def one(text: str) -> str:
        for at, to in words.items():
            text = text.replace(at, to)
        return text

    return one(command) if isinstance(command, str) else [one(word) for word in command]
