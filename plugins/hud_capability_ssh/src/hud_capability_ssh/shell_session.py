"""A shell that stays: one bash over one channel, told a command at a time."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any, Protocol

import asyncssh

from hud.capability.interfaces import CommandResult, How
from hud_capability_ssh.errors import SSHConnectionError
from hud_capability_ssh.output import HeadAndTail

if TYPE_CHECKING:
    from collections.abc import Mapping

KILL_YOUNGER = "younger@hud"
SETTLED_WITHIN_S = 2.0

# Commands come on descriptor 9, ended by NUL; after each, its status and folder go out behind a mark that no
# output contains by chance. Commands themselves have no input and none of these descriptors.
_DRIVER = """exec 9<&0 </dev/null 8>&1 7>&2
while IFS= read -r -d '' -u 9 __hud_command; do
builtin eval "$__hud_command" 9<&- 8>&- 7>&-
builtin printf '\\0%s %s %s\\0' "$__hud_mark" "$?" "$PWD" >&8
builtin printf '\\0%s\\0' "$__hud_mark" >&7
done"""


class Opens(Protocol):
    """What a session asks of its client."""

    cwd: str
    output_bytes: int

    def composed(self, command: str, cwd: str | None, env: Mapping[str, str] | None) -> str:
        """Return the words to send, with `cd` before."""
        ...

    async def connection(self) -> Any:
        """Return what has `create_session`."""
        ...


class _Stream:
    """One of the two outputs, cut at the mark."""

    def __init__(self, mark: bytes, limit: int) -> None:
        self._mark = b"\0" + mark
        self._limit = limit
        self._pending = bytearray()
        self.begin()

    def begin(self) -> None:
        self.kept = HeadAndTail(self._limit)
        self.fields: list[bytes] | None = None

    def take(self, data: bytes) -> None:
        self._pending += data
        self.scan()

    def scan(self) -> None:
        """Move what is output to `kept`; at the mark, set `fields` and leave the rest for the next command."""
        if self.fields is not None:
            return
        at = self._pending.find(self._mark)
        if at < 0:
            safe = len(self._pending) - len(self._mark) + 1
            if safe > 0:
                self.kept.append(bytes(self._pending[:safe]))
                del self._pending[:safe]
            return
        end = self._pending.find(b"\0", at + 1)
        if end < 0:
            return
        self.kept.append(bytes(self._pending[:at]))
        self.fields = bytes(self._pending[at + len(self._mark) : end]).split(b" ", 2)
        del self._pending[: end + 1]

    def rest(self) -> None:
        self.kept.append(bytes(self._pending))
        self._pending.clear()


class _Channel(asyncssh.SSHClientSession[bytes]):
    def __init__(self, out: _Stream, err: _Stream, changed: asyncio.Event) -> None:
        self.out, self.err = out, err
        self.changed = changed
        self.closed = False
        self.status: int | None = None
        self.signal: tuple[str, str] | None = None

    def data_received(self, data: bytes, datatype: Any) -> None:
        (self.out if datatype is None else self.err).take(data)
        self.changed.set()

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: ARG002
        self.signal = (signal, msg)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed = True
        self.changed.set()


class SSHShellSession:
    """Made by `SSHClient.session`. Commands run one after the other; each may be given its own deadline.

    A command that ends the shell (`exit`) is answered with its status; the next one finds a fresh shell, in the
    same folder, without the variables.
    """

    def __init__(self, client: Opens) -> None:
        self._client = client
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._chan: Any = None
        self._session: _Channel | None = None
        self.cwd = client.cwd
        self.restarts = 0

    async def start(self) -> None:
        """Begin with a fresh shell."""
        mark = secrets.token_hex(8)
        streams = [_Stream(mark.encode(), self._client.output_bytes) for _ in range(2)]
        self._session = _Channel(streams[0], streams[1], self._changed)
        session = self._session
        command = self._client.composed(f"__hud_mark={mark}\n{_DRIVER}", self.cwd, None)
        conn = await self._client.connection()
        try:
            self._chan, _ = await conn.create_session(lambda: session, command, encoding=None)
        except (asyncssh.Error, OSError) as error:
            raise SSHConnectionError(f"cannot start a shell: {error}") from error

    async def run(self, command: str, *, timeout_s: float | None = None) -> CommandResult:
        """Run one command; after 120 s, or `timeout_s`, what it started is killed and the shell goes on.

        Where it does not (a loop of its own), it is started anew and `restarts` counts it.
        """
        async with self._turn:
            began = time.monotonic()
            if self._session is None or self._session.closed:
                self.restarts += 1
                await self.start()
            session = self._session
            assert session is not None
            for stream in (session.out, session.err):
                stream.begin()
                stream.scan()
            timed_out = False
            try:
                self._chan.write(command.encode("utf-8", "surrogateescape").replace(b"\0", b"") + b"\0")
                try:
                    async with asyncio.timeout(120.0 if timeout_s is None else timeout_s):
                        await self._settled(session)
                except TimeoutError:
                    timed_out = True
                    await self._interrupt(session)
            except asyncio.CancelledError:
                self._end(session)
                raise
            if session.closed and session.status is None and session.signal is None and not timed_out:
                raise SSHConnectionError(
                    f"the connection broke while {command[:200]!r} ran; the shell was lost"
                )
            return self._result(command, session, timed_out, time.monotonic() - began)

    async def _settled(self, session: _Channel) -> None:
        while not session.closed and (session.out.fields is None or session.err.fields is None):
            self._changed.clear()
            await self._changed.wait()

    async def _interrupt(self, session: _Channel) -> None:
        if not session.closed:
            self._chan.send_signal(KILL_YOUNGER)
        try:
            async with asyncio.timeout(SETTLED_WITHIN_S):
                await self._settled(session)
        except TimeoutError:
            self._end(session)

    def _end(self, session: _Channel) -> None:
        if not session.closed:
            self._chan.send_signal("KILL")
            self._chan.abort()
        self._session = None

    def _result(self, command: str, session: _Channel, timed_out: bool, seconds: float) -> CommandResult:
        how: How = "timeout" if timed_out else "exited"
        status: int | None = session.status
        name = None
        if session.out.fields is not None and len(session.out.fields) == 3:
            status = int(session.out.fields[1])
            self.cwd = session.out.fields[2].decode("utf-8", "surrogateescape")
        else:
            session.out.rest()
            session.err.rest()
        if session.signal is not None and not timed_out:
            name = f"SIG{session.signal[0]}"
            how = "out_of_memory" if session.signal[1] == "out_of_memory" else "killed"
        if how == "exited" and status is not None and status > 128:
            how, name = _signalled(status)
        elif how == "exited" and status == 127:
            how = "not_found"
        return CommandResult(
            command,
            status if how in ("exited", "not_found") else None,
            session.out.kept.text(),
            session.err.kept.text(),
            how,
            name,
            bool(session.out.kept.dropped or session.err.kept.dropped),
            seconds,
        )

    async def restart(self) -> None:
        """End the shell and all it started, and begin anew in the workspace's folder."""
        async with self._turn:
            if self._session is not None:
                self._end(self._session)
            self.cwd = self._client.cwd
            await self.start()

    async def close(self) -> None:
        """End the shell and all it started. Safe to call twice."""
        if self._session is not None:
            self._end(self._session)


def _signalled(status: int) -> tuple[How, str | None]:
    """Read the status by which bash says that a signal ended a command; other numbers are plain statuses."""
    import signal

    if status == 128 + signal.SIGKILL:
        return "killed", "SIGKILL"
    if status - 128 in (
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGBUS,
        signal.SIGFPE,
    ):
        return "signalled", signal.Signals(status - 128).name
    return "exited", None
