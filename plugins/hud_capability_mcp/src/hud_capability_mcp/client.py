"""The client of MCP: tools and resources of one server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self

import httpx2
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from hud.errors import ConfigError, ConnectionLostError
from hud.types import MCPToolResult
from hud.values import plain
from hud_capability_mcp.tunnel import TunnelTransport

if TYPE_CHECKING:
    from hud.capability.interfaces import StreamOpener
    from hud.types import Capability

CONNECT_S = 30.0
CALL_S = 600.0
Progress = Callable[[float, float | None, str | None], Awaitable[None]]


class MCPClient:
    """One connection to one server, kept by a task of its own until `close`; safe to use from any task of its loop."""

    families: ClassVar[tuple[str, ...]] = ("mcp",)

    def __init__(self, capability: Capability, opener: StreamOpener | None = None) -> None:
        self.capability = capability
        self._opener = opener
        self._client: Client | None = None
        self._closing = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The SDK's scopes must be left by the task that entered them: this one, which close() ends.
        self._owner = asyncio.create_task(self._hold(), name=f"mcp {capability.name}")

    @classmethod
    async def connect(cls, capability: Capability, opener: StreamOpener | None = None) -> Self:
        """Connect and say hello.

        Raises:
            ConfigError: the transport is none that can be spoken.
            ConnectionLostError: the server cannot be reached, refuses the token, or does not speak MCP.
        """
        client = cls(capability, opener)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.shield(client._ready)
        except TimeoutError:
            await client.close()
            raise ConnectionLostError(
                f"mcp server {capability.name!r} did not answer within {CONNECT_S:g} s"
            ) from None
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        """End the connection; safe to call twice."""
        self._closing.set()
        if not self._owner.done():
            await asyncio.wait({self._owner}, timeout=5)
        if not self._owner.done():
            self._owner.cancel()
            await asyncio.wait({self._owner}, timeout=5)
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()

    @property
    def instructions(self) -> str | None:
        """What the server says of how to use it."""
        return self._connected.instructions

    async def list_tools(self) -> list[dict[str, Any]]:
        """Return `{name, description, inputSchema}` for each tool, of all pages."""
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await self._connected.list_tools(cursor=cursor)
            tools += [
                {
                    "name": tool.name,
                    "description": tool.description or tool.title or tool.name,
                    "inputSchema": plain(tool.input_schema),
                }
                for tool in page.tools
            ]
            cursor = page.next_cursor
            if not cursor:
                return tools

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        progress: Progress | None = None,
        timeout_s: float = CALL_S,
    ) -> MCPToolResult:
        """Call one tool; its own failure is a result with `isError`.

        `progress` is told of (done, total, message). Cancelling tells the server to stop.
        """
        from mcp.shared.exceptions import MCPError

        async def told(progress: float, total: float | None, message: str | None) -> None:  # the SDK's names
            if heard is not None:
                await heard(progress, total, message)

        heard = progress
        listener = None if heard is None else told
        try:
            result = await self._connected.call_tool(
                name, dict(arguments), read_timeout_seconds=timeout_s, progress_callback=listener
            )
        except MCPError as error:
            return MCPToolResult.of_text(f"{name}: {error}", error=True)
        content = [
            block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content
        ]
        structured = result.structured_content
        if not content and structured is not None:
            import json

            content = [{"type": "text", "text": json.dumps(structured, ensure_ascii=False)}]
        return MCPToolResult(
            content, bool(result.is_error), structured if isinstance(structured, dict) else None
        )

    async def list_resources(self) -> list[dict[str, Any]]:
        """Return `{uri, name, mimeType, ...}` for each resource, of all pages."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await self._connected.list_resources(cursor=cursor)
            found += [r.model_dump(mode="json", by_alias=True, exclude_none=True) for r in page.resources]
            cursor = page.next_cursor
            if not cursor:
                return found

    async def read_resource(self, uri: str) -> list[dict[str, Any]]:
        """Return the contents of a resource: `{uri, mimeType, text}` or `{uri, mimeType, blob}` (base64)."""
        result = await self._connected.read_resource(uri)
        return [c.model_dump(mode="json", by_alias=True, exclude_none=True) for c in result.contents]

    @property
    def _connected(self) -> Client:
        if self._client is None or self._closing.is_set():
            raise ConnectionLostError(f"mcp server {self.capability.name!r} is not connected")
        return self._client

    async def _hold(self) -> None:
        """Hold the connection open until told to close; what ends it earlier is told to whoever waits."""
        try:
            async with self._http() as http, Client(self._transport(http), mode="auto") as client:
                self._client = client
                if not self._ready.done():
                    self._ready.set_result(None)
                await self._closing.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the owner has nobody above; whoever uses the client is told
            self._client = None
            if not self._ready.done():
                self._ready.set_exception(self._lost(error))

    def _lost(self, error: BaseException) -> Exception:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, ConfigError):
            return error
        text = str(error) or type(error).__name__
        lost = ConnectionLostError(f"mcp server {self.capability.name!r} at {self.capability.url}: {text}")
        lost.__cause__ = error
        return lost

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[httpx2.AsyncClient]:
        token = self.capability.params.get("auth_token")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = None if self._opener is None else TunnelTransport(self._opener)
        timeout = httpx2.Timeout(30.0, read=CALL_S)
        async with httpx2.AsyncClient(headers=headers, timeout=timeout, transport=transport) as http:
            yield http

    def _transport(self, http: httpx2.AsyncClient) -> Any:
        url, kind = self.capability.url, self.capability.params.get("transport", "streamable-http")
        if kind == "streamable-http":
            return streamable_http_client(url, http_client=http)
        if kind == "sse":

            def factory(**_: Any) -> httpx2.AsyncClient:
                return http

            return sse_client(url, httpx_client_factory=factory)  # type: ignore[arg-type]
        raise ConfigError(
            f"mcp server {self.capability.name!r}: transport {kind!r} cannot be spoken; use streamable-http or sse"
        )
