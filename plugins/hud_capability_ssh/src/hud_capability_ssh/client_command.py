"""One command over ssh, from its start to its result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import asyncssh

from hud.capability.interfaces import CommandResult, How
from hud_capability_ssh.errors import SSHConnectionError
from hud_capability_ssh.output import HeadAndTail

if TYPE_CHECKING:
    from hud_capability_ssh.client import SSHClient

KILLED_WITHIN_S = 5.0


class ClientCommand(asyncssh.SSHClientSession[bytes]):
    """Collects output, bounded, and how the command ended."""

    def __init__(self, command: str, limit: int, on_output: Callable[[bytes, bool], None] | None) -> None:
        self._command = command
        self._out, self._err = HeadAndTail(limit), HeadAndTail(limit)
        self._on_output = on_output
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._status: int | None = None
        self._signal: tuple[str, str] | None = None

    async def run(
        self,
        client: SSHClient,
        command: str,
        env: Mapping[str, str],
        timeout_s: float,
        data: str | bytes | None,
    ) -> CommandResult:
        """Run it; see `SSHClient.run`."""
        began = time.monotonic()
        chan = await self._opened(client, command, env)
        timed_out = False
        try:
            if data:
                chan.write(data.encode() if isinstance(data, str) else data)
            chan.write_eof()
            try:
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(self._closed)
            except TimeoutError:
                timed_out = True
                chan.send_signal("KILL")
                try:
                    async with asyncio.timeout(KILLED_WITHIN_S):
                        await asyncio.shield(self._closed)
                except TimeoutError:
                    pass  # a foreign server that does not kill: what was printed is returned all the same
        except asyncio.CancelledError:
            if not self._closed.done():
                chan.send_signal("KILL")
            raise
        finally:
            if not self._closed.done():
                chan.abort()
        if self._status is None and self._signal is None and not timed_out:
            raise SSHConnectionError(f"the connection broke while {self._command[:200]!r} ran")
        return self._result(timed_out, time.monotonic() - began)

    async def _opened(self, client: SSHClient, command: str, env: Mapping[Any, Any]) -> Any:
        for last in (False, True):
            conn = await client.connection()
            try:
                chan, _ = await conn.create_session(lambda: self, command, env=env or (), encoding=None)
                return chan
            except (asyncssh.ConnectionLost, BrokenPipeError, ConnectionResetError) as error:
                # Nothing ran yet: a connection that turned out to be gone is made anew, once.
                if last or not conn.is_closed():
                    raise SSHConnectionError(f"cannot start {self._command[:200]!r}: {error}") from error
            except asyncssh.ChannelOpenError as error:
                if last or not conn.is_closed():
                    raise SSHConnectionError(
                        f"cannot start {self._command[:200]!r}: {error.reason}"
                    ) from error
        raise AssertionError

    def _result(self, timed_out: bool, seconds: float) -> CommandResult:
        how: How = "exited"
        name = None
        if self._signal is not None:
            name = f"SIG{self._signal[0]}"
            how = "killed" if self._signal[0] == "KILL" else "signalled"
            if self._signal[1] in ("timeout", "out_of_memory"):
                how = "timeout" if self._signal[1] == "timeout" else "out_of_memory"
        elif self._status == 127:
            how = "not_found"
        if timed_out:
            how = "timeout"
        return CommandResult(
            self._command,
            self._status if how in ("exited", "not_found") else None,
            self._out.text(),
            self._err.text(),
            how,
            name,
            bool(self._out.dropped or self._err.dropped),
            seconds,
        )

    def data_received(self, data: bytes, datatype: Any) -> None:
        (self._out if datatype is None else self._err).append(data)
        if self._on_output is not None:
            self._on_output(data, datatype is not None)

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: ARG002
        self._signal = (signal, msg)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._closed.done():
            self._closed.set_result(None)
