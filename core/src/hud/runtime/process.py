"""The orchestrator's handle on one child: its channel, its death, its last words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hud.errors import RuntimeStartError
from hud.runtime.gate import with_remedy

TAIL_LINES = 50
TAIL_BYTES = 16 * 1024
_CRASHED_IN = re.compile(r'  File "([^"]+)", line \d+ in ')
"""A frame as `faulthandler` writes it."""


def last_lines(path: Path, count: int = TAIL_LINES) -> str:
    """Return the last lines of an output file, at most 16 KiB; "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-count:])


def with_output(text: str, path: Path) -> str:
    """Return `text`, with the last lines of the output file `path` below it where there are any.

    Of the stack that a crash left there, only the author's part.
    """
    from hud.environment.tracebacks import is_ours

    lines = last_lines(path).splitlines()
    frames = ((line, _CRASHED_IN.match(line)) for line in lines)
    tail = "\n".join(
        line for line, frame in frames if frame is None or not (frame[1] == "<string>" or is_ours(frame[1]))
    )
    return f"{text}; its last output:\n{tail}" if tail else f"{text}; it printed nothing"


def how_it_ended(code: int | None) -> str:
    """Say in words what `os.waitstatus_to_exitcode` gave; None is an end that nobody saw."""
    if code is None:
        return "was killed from outside"
    if code >= 0:
        return f"exited with status {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"was killed by signal {-code}"


class ZygoteGoneError(RuntimeStartError):
    """Raised when a zygote ended before it made the child that it was asked for."""


class LocalProcess:
    """A child of a zygote. Belongs to the loop it was made on; `close` must be called."""

    def __init__(self, channel: socket.socket, log: Path, name: str) -> None:
        self.log = log
        self.name = name
        self.pid: int | None = None
        """The number of the serving process, as this process sees it."""
        self.url: str | None = None
        self.view: str | None = None
        self.failed: dict[str, Any] | None = None
        self.exit_code: int | None = None
        self.own_files: list[Path] = []
        """Files that go with it."""
        self.written: list[Path] = []
        """Folders that may hold what it wrote over the project."""
        self.kept: bool = False
        """Whether somebody wants the files it wrote; see `LocalRuntime(keep=...)`."""
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._channel.setblocking(False)
        self._pidfd = -1
        self._changed = asyncio.Event()
        self._begun = False
        self._dead = asyncio.Event()
        self._gone = asyncio.Event()
        self._loop.add_reader(channel.fileno(), self._on_channel)

    @property
    def forked(self) -> bool:
        """Whether the zygote made this child."""
        return self._pidfd >= 0

    @property
    def dead(self) -> bool:
        """Whether it has ended; what it started may take a moment more."""
        return self._dead.is_set()

    def keep(self) -> None:
        """Ask that what this placement wrote is kept, where its runtime has `keep="failed"`."""
        self.kept = True

    async def died(self) -> str:
        """Return, once the process has ended unasked, how, with its last output lines."""
        await self._dead.wait()
        return self.obituary()

    def obituary(self) -> str:
        """Say how the process ended."""
        who = f"environment process {self.pid or ''}".strip()
        return with_output(f"{who} of {self.name} {how_it_ended(self.exit_code)}", self.log)

    async def begun(self) -> None:
        """Return once it is in place and begins to run the environment's own code; raises as `ready` does."""
        await self._until(lambda: self._begun or self.url is not None)

    async def ready(self) -> str:
        """Return the url once it serves.

        Raises:
            HudError: the environment's own start failed.
            RuntimeStartError: it ended before it served.
        """
        await self._until(lambda: self.url is not None)
        assert self.url is not None
        return self.url

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            if self.failed is not None:
                raise_failure(self.failed, self.log)
            if self.dead:
                if not self.forked:
                    raise ZygoteGoneError(f"the zygote of {self.name} ended before it forked")
                raise RuntimeStartError(self.obituary())
            self._changed.clear()
            await self._changed.wait()

    async def stop(self, grace_s: float) -> None:
        """Have it stop by itself, or kill it after `grace_s` seconds; returns when nothing of it runs."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        if await self._gone_within(grace_s if self.url is not None else 0.0):
            return
        self.kill()
        await self._gone_within(10.0)

    def kill(self) -> None:
        """Kill the serving process; what it started follows."""
        if self._pidfd >= 0 and not self._gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the descriptors; does not end the process."""
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    async def _gone_within(self, seconds: float) -> bool:
        if not self._gone.is_set() and seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._gone.wait()
        return self._gone.is_set()

    def _on_channel(self) -> None:
        for _ in range(8):
            try:
                message, descriptors, _, _ = socket.recv_fds(self._channel, 1 << 18, 2)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            if not message:
                # Zygote and child hold the other end: both have closed it, so nothing of the child is left.
                self._loop.remove_reader(self._channel.fileno())
                self._gone.set()
                self._dead.set()
                self._changed.set()
                return
            self._understand(json.loads(message), descriptors)

    def _understand(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "forked" in message and descriptors:
            self._pidfd = descriptors[0]
            os.set_inheritable(self._pidfd, False)  # descriptors arrive inheritable (unix(7))
            self.pid = _number_of(self._pidfd)
        elif "begun" in message:
            self._begun = True
        elif "ready" in message:
            self.url = message["ready"]
        elif "view" in message:
            self.view = message["view"]
        elif "failed" in message:
            self.failed = message["failed"]
        elif "ended" in message:
            self.exit_code = message["ended"]
            self._dead.set()
        self._changed.set()


def _number_of(pidfd: int) -> int | None:
    """Return the process number of `pidfd` in this process's namespace (pidfd_open(2), fdinfo)."""
    try:
        text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    except OSError:
        return None
    number = next((line.split()[1] for line in text.splitlines() if line.startswith("Pid:")), "-1")
    return int(number) if int(number) > 0 else None


def raise_failure(failed: dict[str, Any], log: Path) -> None:
    """Raise what `preparation.failure` described, as the same kind of error."""
    import hud.errors

    kind = getattr(hud.errors, failed["type"], None)
    text = with_remedy(failed["message"], failed.get("errno"))
    if not (isinstance(kind, type) and issubclass(kind, hud.errors.HudError)):
        kind = RuntimeStartError
    if kind is hud.errors.TemplateRaisedError:
        raise hud.errors.TemplateRaisedError(text, failed.get("traceback", ""))
    if kind is RuntimeStartError:
        raise RuntimeStartError(with_output(text, log))
    try:
        error = kind(text)
    except TypeError:
        error = RuntimeStartError(text)
    raise error
