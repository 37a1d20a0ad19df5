"""One ssh session channel: a command or a shell of the sandbox, its pipes joined to the channel."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import struct
import termios
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from asyncssh.constants import EXTENDED_DATA_STDERR
from asyncssh.stream import SSHServerStreamSession

from hud.errors import SandboxError
from hud_capability_ssh import transfers

if TYPE_CHECKING:
    from hud_capability_ssh.sandbox import Child, Sandbox
    from hud_capability_ssh.server import Served

CHUNK = 65536
KILL_YOUNGER = "younger@hud"
"""A signal of ours (RFC 4254, section 6.10 allows names with a domain): kill all that the session's command
started since the last input it was sent, but not its leader.
"""
CHANGES = "changes@hud"
"""A subsystem of ours: answers the files that changed since it was asked last."""
TICKS = os.sysconf("SC_CLK_TCK")


class CommandSession(SSHServerStreamSession[bytes]):
    """Its command starts once the channel is open; files (sftp, scp) are the library's own."""

    def __init__(self, workspace: Served, files: Callable[[Any], Any]) -> None:
        super().__init__(self._transfer, files, 3, True)
        self._workspace = workspace
        self._events = asyncio.get_running_loop()
        self._terminal: tuple[str, int, int] | None = None
        self._child: Child | None = None
        self._sandbox: Sandbox | None = None
        self._serves_files = False
        self._serves_changes = False
        self._input: list[bytes] = []
        self._input_ended = False
        self._input_ticks = 0
        self._reading: dict[int, int | None] = {}
        self._paused = False
        self._gone = False
        self._deadline: asyncio.TimerHandle | None = None
        self._timed_out = False
        self._told = False

    @property
    def _channel(self) -> Any:
        return self._chan

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Any) -> bool:  # noqa: ARG002
        self._terminal = (term_type, term_size[0] or 80, term_size[1] or 24)
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self._serves_files = subsystem in ("sftp", transfers.SUBSYSTEM)
        self._serves_changes = subsystem == CHANGES
        return self._serves_files or self._serves_changes

    def exec_requested(self, command: str) -> bool:
        self._serves_files = command.startswith("scp ") and (" -t" in command or " -f" in command)
        return True

    def shell_requested(self) -> bool:
        return True

    def session_started(self) -> None:
        if self._serves_files:
            super().session_started()
            return
        self._channel.set_write_buffer_limits(high=4 * CHUNK)
        self._workspace.own(self._tell_changes() if self._serves_changes else self._run())

    def _transfer(self, reader: Any, writer: Any, _: Any) -> Awaitable[None]:
        return transfers.serve(reader, writer, self._workspace)

    async def _tell_changes(self) -> None:
        """Answer the subsystem that lists changed files: one JSON text, and the end."""
        try:
            changes = await self._workspace.changes()
        except (OSError, SandboxError) as error:
            self._fail(f"hud: {error}\n", 1)
            return
        self._write(json.dumps(changes).encode(), None)
        if not self._gone:
            self._channel.exit(0)

    async def _started(self, command: str | None, env: dict[str, str]) -> Child:
        """Start the command; a sandbox that turns out to be gone is started anew, once."""
        for last in (False, True):
            self._sandbox = await self._workspace.running()
            shell = self._sandbox.spec.shell(*(["-i"] if self._terminal is not None else []))
            words = shell if command is None else command
            try:
                return await self._sandbox.spawn(words, env=env, tty=self._terminal is not None)
            except SandboxError:
                if last or not self._sandbox.dead.is_set():
                    raise
        raise AssertionError

    async def _run(self) -> None:
        command = self._channel.get_command()
        env = {
            k.decode(): v.decode(errors="surrogateescape")
            for k, v in self._channel.get_environment_bytes().items()
        }
        if self._terminal is not None:
            env["TERM"] = self._terminal[0]
        try:
            await self._workspace.client_came_in()
            child = await self._started(command, env)
        except (OSError, SandboxError) as error:
            self._fail(f"hud: {error}\n", 127 if isinstance(error, FileNotFoundError) else 126)
            return
        sandbox = child.sandbox
        self._child = child
        if child.note == "processes":
            limit = sandbox.spec.limits.processes
            self._say(f"hud: all {limit} processes were in use: every process was ended\n")
        if self._terminal is not None:
            self._resize(self._terminal[1], self._terminal[2])
            self._watch(child.stdout, None)
        else:
            self._watch(child.stdout, None)
            self._watch(child.stderr, EXTENDED_DATA_STDERR)
        self._arm(sandbox.spec.limits.seconds)
        if self._input or self._input_ended:
            self._feed()
        if self._gone:
            self.signal_received("HUP")
        status, number = await child.wait()
        self._finish(status, number)

    # From the client to the command.

    def data_received(self, data: bytes, datatype: Any) -> None:
        if self._serves_files:
            super().data_received(data, datatype)
            return
        self._input_ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
        self._input.append(data)
        self._told = True
        if self._child is not None:
            self._arm(self._child.sandbox.spec.limits.seconds)
        if self._child is not None and len(self._input) == 1:
            self._feed()

    def eof_received(self) -> bool:
        if self._serves_files:
            return bool(super().eof_received())
        self._input_ended = True
        if self._child is not None and not self._input:
            self._feed()
        return True

    def _feed(self) -> None:
        child = self._child
        if child is None or child.stdin < 0:
            self._input.clear()
            return
        while self._input:
            try:
                sent = os.write(child.stdin, self._input[0])
            except BlockingIOError:
                self._channel.pause_reading()
                self._events.add_writer(child.stdin, self._feed_more)
                return
            except OSError:
                self._input.clear()  # nobody reads: as with a broken pipe, what comes is dropped
                break
            if sent < len(self._input[0]):
                self._input[0] = self._input[0][sent:]
            else:
                del self._input[0]
        if self._input_ended and self._terminal is None:
            os.close(child.stdin)
            child.stdin = -1
        elif self._input_ended:
            os.write(child.stdin, b"\x04")

    def _feed_more(self) -> None:
        if self._child is not None and self._child.stdin >= 0:
            self._events.remove_writer(self._child.stdin)
        self._channel.resume_reading()
        self._feed()

    def signal_received(self, signal: str) -> None:
        if self._serves_files or self._child is None:
            return
        self._workspace.own(self._signal(self._child, signal))

    async def _signal(self, child: Child, name: str) -> None:
        try:
            if name == KILL_YOUNGER:
                await child.kill(max(1, self._input_ticks))
            elif name == "KILL":
                await child.kill()
            else:
                await child.signal(int(getattr(signal, f"SIG{name}", signal.SIGTERM)))
        except (OSError, SandboxError):
            pass  # it has ended

    def break_received(self, msec: int) -> bool:  # noqa: ARG002
        self.signal_received("INT")
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:  # noqa: ARG002
        self._resize(width, height)

    def _resize(self, columns: int, rows: int) -> None:
        if self._terminal is not None and self._child is not None and self._child.stdout >= 0:
            fcntl.ioctl(self._child.stdout, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    # From the command to the client.

    def _watch(self, fd: int, datatype: int | None) -> None:
        self._reading[fd] = datatype
        if not self._paused:
            self._events.add_reader(fd, self._readable, fd, datatype)

    def _readable(self, fd: int, datatype: int | None) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal whose last user is gone
        if data:
            self._write(data, datatype)
        else:
            self._events.remove_reader(fd)
            self._reading.pop(fd, None)

    def _write(self, data: bytes, datatype: int | None) -> None:
        if not self._gone:
            try:
                self._channel.write(data, datatype)
            except OSError:
                self._gone = True

    def pause_writing(self) -> None:
        if self._serves_files:
            super().pause_writing()
            return
        self._paused = True
        for fd in self._reading:
            self._events.remove_reader(fd)

    def resume_writing(self) -> None:
        if self._serves_files:
            super().resume_writing()
            return
        self._paused = False
        for fd, datatype in self._reading.items():
            self._events.add_reader(fd, self._readable, fd, datatype)

    def _finish(self, status: int, number: int) -> None:
        child, sandbox = self._child, self._sandbox
        assert child is not None
        assert sandbox is not None
        if self._deadline is not None:
            self._deadline.cancel()
        if child.stdin >= 0:
            self._events.remove_writer(child.stdin)
        for fd, datatype in self._reading.items():
            self._events.remove_reader(fd)
            sandbox.drain(fd, partial(self._write, datatype=datatype))
        if self._terminal is None:
            for fd in (child.stdout, child.stderr):
                if fd not in self._reading:
                    os.close(fd)
            if child.stdin >= 0:
                os.close(child.stdin)
        elif not self._reading:
            os.close(child.stdout)
        child.stdin = child.stdout = child.stderr = -1
        self._reading = {}
        if self._gone:
            return
        for note in child.notes():
            self._say(note)
        if sandbox.dead.is_set():
            self._say("hud: the sandbox ended and will be started anew\n")
        if number:
            name = signal.Signals(number).name.removeprefix("SIG")
            reason = self._reason(number)
            self._channel.exit_with_signal(name, False, reason)
        else:
            self._channel.exit(status)

    def _reason(self, number: int) -> str:
        if self._timed_out:
            return "timeout"
        if number == signal.SIGKILL and self._child is not None and self._child.out_of_memory():
            return "out_of_memory"
        return ""

    def _too_long(self) -> None:
        if (
            self._told and not self._input_ended
        ):  # a shell that is told commands: not it, its current one is over time
            self.signal_received(KILL_YOUNGER)
            return
        self._timed_out = True
        self.signal_received("KILL")

    def _arm(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if seconds is not None:
            self._deadline = self._events.call_later(seconds, self._too_long)

    def _say(self, text: str) -> None:
        self._write(text.encode(), EXTENDED_DATA_STDERR if self._terminal is None else None)

    def _fail(self, text: str, status: int) -> None:
        if not self._gone:
            self._say(text)
            self._channel.exit(status)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._serves_files:
            super().connection_lost(exc)
            return
        if self._paused:
            self.resume_writing()  # what comes is read and dropped, so that nothing inside blocks on it
        # As at the end of a terminal: what is to outlive it (`nohup`) does.
        self.signal_received("HUP")
