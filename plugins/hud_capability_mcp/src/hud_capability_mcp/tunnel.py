"""HTTP over streams of the control channel: every connection of the client is a stream, no listener is made."""

# ruff: noqa: ARG002 - the signatures are httpcore's

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx2

if TYPE_CHECKING:
    import ssl

    from hud.capability.interfaces import ByteStream, StreamOpener


class _Stream(httpcore2.AsyncNetworkStream):
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await self._stream.read(max_bytes)
        except TimeoutError as error:
            raise httpcore2.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._stream.write(buffer)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.UnsupportedProtocol("an MCP server behind a tunnel is spoken to without TLS")

    def get_extra_info(self, info: str) -> Any:
        return None


class _Backend(httpcore2.AsyncNetworkBackend):
    def __init__(self, opener: StreamOpener) -> None:
        self._opener = opener

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                return _Stream(await self._opener())
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.UnsupportedProtocol("the address is the environment's to choose")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except httpcore2.NetworkError as error:
            raise httpx2.ReadError(str(error)) from error
        except httpcore2.RemoteProtocolError as error:
            raise httpx2.RemoteProtocolError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()


class TunnelTransport(httpx2.AsyncBaseTransport):
    """An HTTP transport whose connections `opener` opens, whatever address is asked for."""

    def __init__(self, opener: StreamOpener) -> None:
        # No connection is kept: a model thinks longer than servers hold an idle one (uvicorn: 5 s), a stream does not
        # tell that it was closed meanwhile, and a new one costs less than a millisecond.
        self._pool = httpcore2.AsyncConnectionPool(
            network_backend=_Backend(opener), max_connections=64, max_keepalive_connections=0
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        url = httpcore2.URL(
            scheme=b"http",
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        sent = httpcore2.Request(
            method=request.method,
            url=url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            response = await self._pool.handle_async_request(sent)
        except httpcore2.TimeoutException as error:
            raise httpx2.TimeoutException(str(error)) from error
        except httpcore2.NetworkError as error:
            raise httpx2.NetworkError(str(error)) from error
        except httpcore2.ProtocolError as error:
            raise httpx2.RemoteProtocolError(str(error)) from error
        return httpx2.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response.stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()
