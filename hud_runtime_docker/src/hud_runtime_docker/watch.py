"""One thread a container: its output, its announcement, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from hud.errors import HudError, RuntimeDiedError, RuntimeStartError
from hud.runtime.output import OUTPUT
from hud_runtime_docker.engine import engine_errors, knock

if TYPE_CHECKING:
    from hud_runtime_docker.engine import Engine

TAIL_LINES = 50
JOIN_S = 30.0
LAST_WORDS_S = 1.0
LINE_BYTES = 4096
ANNOUNCEMENT = b"HUD_SERVE_PORT="


class Watcher:
    """Follows a container's output from before its start to its end.

    `ready` resolves with the announced port. `died()` returns once the container has ended unasked. The thread
    ends with the container; nothing polls.
    """

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container
        self._loop = asyncio.get_running_loop()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.ready: asyncio.Future[int] = self._loop.create_future()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._attached: asyncio.Future[None] = self._loop.create_future()
        self._released = False
        self._thread: threading.Thread | None = None
        self._alarm: threading.Timer | None = None
        self._overdue_s: float | None = None
        self._log = OUTPUT.get()
        self._stream: Any = None

    @property
    def tail(self) -> str:
        """The last lines of output, stdout and stderr as they came."""
        return "\n".join(self._tail)

    async def begin(self) -> None:
        """Follow the container, which must exist and not have started; returns once no output can be missed."""
        self._thread = threading.Thread(
            target=self._follow, name=f"hud-docker-{self._container[:12]}", daemon=True
        )
        self._thread.start()
        first: set[asyncio.Future[Any]] = {self._attached, self.ended}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)

    def release(self) -> None:
        """Say that the end to come is asked for."""
        self._released = True
        if self._alarm is not None:
            self._alarm.cancel()
        for future in (self.ready, self.ended, self._attached):
            if not future.done():
                future.cancel()

    def end_after(self, seconds: float) -> None:
        """Kill the container once it has been up that long (limits.run_timeout_s)."""
        self._alarm = threading.Timer(seconds, self._kill, (seconds,))
        self._alarm.daemon = True
        self._alarm.start()

    def _kill(self, seconds: float) -> None:
        self._overdue_s = seconds
        with engine_errors(self._engine.base_url):
            self._engine.api.kill(self._container)

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, which ends with the container; called from a worker thread."""
        if self._thread is None:
            return
        self._thread.join(min(timeout_s, LAST_WORDS_S))
        stream = self._stream
        if self._thread.is_alive() and stream is not None:
            # The engine never ends the stream of a container that was removed before its start.
            with contextlib.suppress(OSError):
                getattr(stream, "_sock", stream).shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout_s)

    async def joined(self) -> None:
        """Wait until the thread has ended, and let no more than 30 s go by."""
        await asyncio.to_thread(self.join, JOIN_S)

    async def wait_ready(self, hint: str = "") -> int:
        """Return the announced port; `hint` is told after how the container ended instead.

        Raises:
            RuntimeStartError: the container ended first; has exit status and its last lines.
        """
        first: set[asyncio.Future[Any]] = {self.ready, self.ended}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if self.ready.done():
            return self.ready.result()
        raise RuntimeStartError(f"the container ended before it served: {self.ended.result()}{hint}")

    async def died(self) -> str:
        """Return how the container ended, once it has."""
        return await asyncio.shield(self.ended)

    def raise_if_ended(self) -> None:
        """Raise `RuntimeDiedError` if the container has ended unasked."""
        if self.ended.done() and not self.ended.cancelled():
            raise RuntimeDiedError(self.ended.result())

    def _follow(self) -> None:
        from docker.errors import NotFound
        from requests import RequestException

        try:
            self._read_output()
            if self._released:
                return
            how = self._how_it_ended()
        except NotFound:
            how = "it was removed by somebody else"
        except (RequestException, OSError, HudError) as error:
            how = f"the engine at {self._engine.base_url} went away ({error}), and the container's ports with it"
        except Exception as error:  # noqa: BLE001 - whatever breaks the stream is how the container was lost
            how = f"its output broke off: {error}"
        self._on_loop(self.ended, f"{how}{self._shown_tail()}")

    def _read_output(self) -> None:
        from docker.utils.socket import frames_iter

        stream = self._engine.api.attach_socket(
            self._container, params={"stream": 1, "logs": 1, "stdout": 1, "stderr": 1}
        )
        self._stream = stream
        self._on_loop(self._attached, None)
        pending = b""
        with ExitStack() as stack:
            stack.callback(_close, stream)
            log = None if self._log is None else stack.enter_context(self._log.open("ab", buffering=0))
            for _, chunk in frames_iter(stream, tty=False):  # type: ignore[no-untyped-call]
                if log is not None:
                    log.write(chunk)
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self._line(line)
                pending = pending[-LINE_BYTES:]
        self._line(pending)

    def _line(self, line: bytes) -> None:
        if line.startswith(ANNOUNCEMENT) and line[len(ANNOUNCEMENT) :].strip().isdigit():
            self._on_loop(self.ready, int(line[len(ANNOUNCEMENT) :]))
        if line.strip():
            self._tail.append(line[:LINE_BYTES].decode(errors="replace").rstrip("\r"))

    def _how_it_ended(self) -> str:
        knock(self._engine.base_url)
        self._engine.api.wait(self._container)
        state = self._engine.api.inspect_container(self._container)["State"]
        if self._overdue_s is not None:
            return f"killed after {self._overdue_s:g} s; raise limits.run_timeout_s"
        if state.get("OOMKilled"):
            return f"out of memory (exit status {state['ExitCode']}); raise resources.memory_mb"
        if state.get("Error"):
            return f"exit status {state['ExitCode']}: {state['Error']}"
        status = int(state["ExitCode"])
        return f"killed by signal {status - 128}" if status > 128 else f"exit status {status}"

    def _shown_tail(self) -> str:
        return f"; its last output:\n{self.tail}" if self._tail else "; it printed nothing"

    def _on_loop(self, future: asyncio.Future[Any], value: Any) -> None:
        def settle() -> None:
            if not future.done():
                future.set_result(value)

        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop has closed; nobody waits any more
            return


def _close(stream: Any) -> None:
    """Close what `attach_socket` gave: the file on top, the socket below, and the response the SDK ties to it."""
    below = getattr(stream, "_sock", None)
    response = getattr(stream, "_response", None)
    for part in (response, stream, below):
        if part is not None:
            with contextlib.suppress(OSError, ValueError):  # closing one may have closed the next
                part.close()
