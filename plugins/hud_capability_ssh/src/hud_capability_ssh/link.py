"""Talk to a sandbox's spawner: requests out, answers and descriptors in, over one socket."""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hud.errors import SandboxError

LARGEST = 60_000
ANSWER = 256 * 1024


class SpawnerLink:
    """One spawner's peer. Requests are answered in order; a spawner that ends fails them all.

    `on_end` is called once, when the spawner is gone, with what is known of why.
    """

    def __init__(self, control: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        control.setblocking(False)
        self._control = control
        self.loop = loop
        self._next = 1
        self._waiting: dict[int, asyncio.Future[tuple[list[Any], list[int]]]] = {}
        self._ended: dict[int, Callable[[int, int], None]] = {}
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self.closed = False
        self.on_end: Callable[[], None] | None = None
        loop.add_reader(control.fileno(), self._readable)

    def next_id(self) -> int:
        """Return a number for a request or a command, never used before."""
        self._next += 1
        return self._next

    async def ask(self, verb: str, *args: Any, fds: Sequence[int] = ()) -> tuple[list[Any], list[int]]:
        """Send one request; return the answer's fields and the descriptors, which the caller then owns.

        Raises the `OSError` that the spawner met, or `SandboxError` where it is gone.
        """
        if self.closed:
            raise SandboxError("the sandbox has ended")
        number = self.next_id()
        future: asyncio.Future[tuple[list[Any], list[int]]] = self.loop.create_future()
        self._waiting[number] = future
        data = marshal.dumps((number, verb, *args), 4)
        carried = list(fds)
        spare = -1
        if len(data) > LARGEST:
            spare = os.memfd_create("request", os.MFD_CLOEXEC)
            os.pwrite(spare, data, 0)
            carried.append(spare)
            data = marshal.dumps((number, "large"), 4)
        try:
            # Descriptors are sent at once or kept as copies: the caller may close its own after this call began.
            self._send(data, carried)
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                for fd in future.result()[1]:  # the answer came as its caller went
                    os.close(fd)
            raise
        finally:
            self._waiting.pop(number, None)
            if spare >= 0:
                os.close(spare)

    def post(self, verb: str, *args: Any) -> None:
        """Send one request whose answer nobody waits for."""
        if not self.closed:
            self._send(marshal.dumps((self.next_id(), verb, *args), 4), [])

    def expect_end(self, ident: int, tell: Callable[[int, int], None]) -> None:
        """Call `tell(exit status, signal)` when the command `ident` ends."""
        self._ended[ident] = tell

    def forget_end(self, ident: int) -> None:
        """Undo `expect_end`."""
        self._ended.pop(ident, None)

    def close(self) -> None:
        """End the spawner, and with it the sandbox. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        self.loop.remove_reader(self._control.fileno())
        self.loop.remove_writer(self._control.fileno())
        self._control.close()
        for _, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SandboxError("the sandbox has ended"))
        ended, self._ended = self._ended, {}
        for tell in ended.values():
            tell(-1, 9)
        if self.on_end is not None:
            self.on_end()

    def _send(self, data: bytes, fds: list[int]) -> None:
        if not self._unsent:
            try:
                socket.send_fds(self._control, [data], fds)
                return
            except BlockingIOError:
                self.loop.add_writer(self._control.fileno(), self._writable)
            except OSError:
                self.close()
                return
        self._unsent.append((data, [os.dup(fd) for fd in fds]))

    def _writable(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                socket.send_fds(self._control, [data], fds)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            self._unsent.popleft()
            for fd in fds:
                os.close(fd)
        self.loop.remove_writer(self._control.fileno())

    def _readable(self) -> None:
        while not self.closed:
            try:
                data, fds, _, _ = socket.recv_fds(self._control, ANSWER, 16)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            if not data:
                self.close()
                return
            for fd in fds:
                os.set_inheritable(fd, False)
            try:
                self._take(json.loads(data), fds)
            except (ValueError, TypeError, KeyError, IndexError, AttributeError):
                # Only a spawner that was taken over says what cannot be read: it ends here.
                for fd in fds:
                    os.close(fd)
                self.close()

    def _take(self, answer: list[Any], fds: list[int]) -> None:
        number, kind, *rest = answer
        if kind == "ended":
            tell = self._ended.pop(rest[0], None)
            if tell is not None:
                tell(int(rest[1]), int(rest[2]))
            return
        future = self._waiting.pop(number, None)
        if future is None or future.done():
            for fd in fds:
                os.close(fd)
            return
        if kind == "done":
            future.set_result((rest, fds))
        else:
            future.set_exception(OSError(int(rest[0]), os.strerror(int(rest[0]))))
