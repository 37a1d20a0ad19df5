"""A client of the wire that knows nothing but its protocol: sockets, lines, JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import Any, Self
from urllib.parse import urlsplit

_WAIT_S = 30.0


class RawClient:
    """One connection to a served environment, frame by frame. Every read is bounded by 30 s."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._last_id = 0
        self.last_was_error: bool = False

    @classmethod
    async def dial(cls, url: str, *, tls: ssl.SSLContext | None = None) -> Self:
        """Connect to `tcp://host:port`, `tls://host:port` or `unix:///path`."""
        parts = urlsplit(url)
        limit = 64 * 1024 * 1024
        if parts.scheme == "unix":
            return cls(*await asyncio.open_unix_connection(parts.path, limit=limit))
        return cls(
            *await asyncio.open_connection(
                parts.hostname,
                parts.port,
                limit=limit,
                ssl=tls,
                server_hostname=parts.hostname if tls is not None else None,
            )
        )

    async def send(self, frame: Any) -> None:
        """Send a frame: bytes as they are, anything else as one line of JSON."""
        data = frame if isinstance(frame, bytes) else json.dumps(frame).encode() + b"\n"
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> dict[str, Any] | None:
        """Return the next frame, or None where the connection has ended."""
        async with asyncio.timeout(_WAIT_S):
            try:
                line = await self.reader.readline()
            except ConnectionError:
                return None
        if not line.endswith(b"\n"):
            return None
        frame: dict[str, Any] = json.loads(line)
        self.last_was_error = "error" in frame
        return frame

    async def post(self, method: str, params: dict[str, Any] | None = None) -> int:
        """Send a request and return its id."""
        self._last_id += 1
        await self.send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params or {}})
        return self._last_id

    async def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the next frame, which must answer it: a reply or an error frame."""
        request_id = await self.post(method, params)
        frame = await self.receive()
        assert frame is not None, f"the connection ended instead of answering {method}"
        assert frame["id"] == request_id, f"{frame} does not answer request {request_id}"
        return frame

    async def result(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return its result."""
        frame = await self.call(method, params)
        assert "result" in frame, f"{method} was refused: {frame}"
        result: dict[str, Any] = frame["result"]
        return result

    async def error(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return its error."""
        frame = await self.call(method, params)
        assert "error" in frame, f"{method} was answered: {frame}"
        error: dict[str, Any] = frame["error"]
        return error

    async def ended(self) -> bool:
        """Wait for the end of the connection; False where another frame comes."""
        return await self.receive() is None

    async def close(self) -> None:
        """Close the connection, as a client that drops does."""
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()

    def abort(self) -> None:
        """End the connection at once, unsent bytes lost."""
        self.writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
