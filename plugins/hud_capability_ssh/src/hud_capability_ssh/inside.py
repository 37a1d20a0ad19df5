"""Run a command in a sandbox to its end, from the process that serves it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hud.capability.interfaces import CommandResult, How
from hud_capability_ssh.output import HeadAndTail

if TYPE_CHECKING:
    from hud_capability_ssh.sandbox import Child, Sandbox


async def run_inside(
    sandbox: Sandbox,
    command: str | Sequence[str],
    *,
    timeout_s: float | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
) -> CommandResult:
    """Run it; a timeout kills all it started and returns what was printed.

    Raises:
        SandboxError: the sandbox has ended, or ended meanwhile.
    """
    began = time.monotonic()
    shown = command if isinstance(command, str) else " ".join(command)
    try:
        child = await sandbox.spawn(command, cwd=cwd, env=env)
    except (FileNotFoundError, NotADirectoryError) as error:
        return CommandResult(shown, 127, "", f"{error}\n", "not_found", duration_s=time.monotonic() - began)
    except OSError as error:
        return CommandResult(shown, 126, "", f"{error}\n", "exited", duration_s=time.monotonic() - began)
    out, err = HeadAndTail(sandbox.spec.limits.output_bytes), HeadAndTail(sandbox.spec.limits.output_bytes)
    timed_out = False
    data = input.encode() if isinstance(input, str) else input or b""
    streams = Streams(child, out, err, data)
    try:
        seconds = timeout_s if timeout_s is not None else sandbox.spec.limits.seconds
        try:
            async with asyncio.timeout(seconds):
                status, number = await child.wait()
        except TimeoutError:
            timed_out = True
            await child.kill()
            async with asyncio.timeout(5):
                status, number = await child.wait()
    finally:
        streams.finish()
        if not child.ended.done():
            await asyncio.shield(child.kill())
    return outcome(shown, child, status, number, timed_out, out, err, time.monotonic() - began)


def outcome(
    command: str,
    child: Child,
    status: int,
    number: int,
    timed_out: bool,
    out: HeadAndTail,
    err: HeadAndTail,
    seconds: float,
) -> CommandResult:
    """Say how a command ended."""
    for note in child.notes():
        err.append(note.encode())
    how, name = _how(child, status, number, timed_out)
    return CommandResult(
        command,
        status if how in ("exited", "not_found") else None,
        out.text(),
        err.text(),
        how,
        name,
        bool(out.dropped or err.dropped),
        seconds,
    )


def _how(child: Child, status: int, number: int, timed_out: bool) -> tuple[How, str | None]:
    name = signal.Signals(number).name if number else None
    if timed_out:
        return "timeout", name
    if number == signal.SIGKILL:
        return ("out_of_memory" if child.out_of_memory() else "killed"), name
    if number:
        return "signalled", name
    return ("not_found" if status == 127 else "exited"), None


class Streams:
    """Feeds a child's input and collects its output until told to finish."""

    def __init__(self, child: Child, out: HeadAndTail, err: HeadAndTail, data: bytes) -> None:
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._data = memoryview(data)
        self._open = {child.stdout: out, child.stderr: err}
        for fd, kept in self._open.items():
            self._loop.add_reader(fd, self._read, fd, kept)
        self._feeding = True
        self._loop.add_writer(child.stdin, self._feed)

    def _read(self, fd: int, kept: HeadAndTail) -> None:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        if data:
            kept.append(data)
        else:
            self._loop.remove_reader(fd)
            del self._open[fd]
            os.close(fd)

    def _feed(self) -> None:
        try:
            while self._data:
                self._data = self._data[os.write(self._child.stdin, self._data) :]
        except BlockingIOError:
            return
        except OSError:
            pass  # it does not read on
        self._stop_feeding()

    def _stop_feeding(self) -> None:
        if self._feeding:
            self._feeding = False
            self._loop.remove_writer(self._child.stdin)
            os.close(self._child.stdin)

    def finish(self) -> None:
        """Collect what is left; what a background process still holds is drained by the sandbox. Safe to call twice."""
        self._stop_feeding()
        for fd, kept in self._open.items():
            self._loop.remove_reader(fd)
            self._child.sandbox.drain(fd, kept.append)
        self._open = {}
        self._child.stdin = self._child.stdout = self._child.stderr = -1
