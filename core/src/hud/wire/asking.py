"""Requests a server sends its client: host calls, and probes for a sign of life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from hud.errors import ConnectionLostError
from hud.wire import frames
from hud.wire.faults import raised_from


class Asking:
    """The requests of one connection that wait for an answer. Their ids begin with `s`."""

    __slots__ = ("_last", "_waiting", "_write")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._last = 0
        self._waiting: dict[str, asyncio.Future[Any]] = {}

    async def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Send a request and return the client's result.

        Raises:
            ConnectionLostError: the connection ended first.
            HudProtocolError: the client refused, or the request is longer than a frame may be.
        """
        request_id, data = self._next(method, params)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        try:
            self._write(data)
            return await future
        finally:
            self._waiting.pop(request_id, None)

    def probe(self) -> None:
        """Send a ping whose answer nobody waits for: any frame is a sign of life."""
        self._write(self._next("ping", {})[1])

    def _next(self, method: str, params: Mapping[str, Any]) -> tuple[str, bytes]:
        self._last += 1
        request_id = f"s{self._last}"
        return request_id, frames.request(request_id, method, params)

    def answered(self, message: Mapping[str, Any]) -> None:
        """Give an answer to who waits for it; a late one, or a probe's, is dropped."""
        future = self._waiting.get(str(message.get("id")))
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(raised_from(message["error"]))
        else:
            future.set_result(message["result"])

    def lose(self) -> None:
        """Fail what waits: the connection has ended."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionLostError("the client's connection ended"))


def is_answer(message: Mapping[str, Any]) -> bool:
    """Tell whether a frame without a method answers a request of the server's."""
    request_id = message.get("id")
    return (
        isinstance(request_id, str)
        and request_id.startswith("s")
        and ("result" in message or "error" in message)
    )
