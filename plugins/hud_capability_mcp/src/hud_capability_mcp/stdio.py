"""A server that is a program speaking over its standard streams, offered again over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hud.errors import RuntimeStartError


@asynccontextmanager
async def relayed(
    name: str, command: Sequence[str], *, env: Mapping[str, str] | None, cwd: str | Path | None
) -> AsyncIterator[Any]:
    """Start the program and yield a server that passes tools and resources through; it ends with the block.

    Raises:
        RuntimeStartError: the program cannot be started, or does not speak MCP.
    """
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters

    program, *arguments = command
    started = StdioServerParameters(
        command=program, args=arguments, env=None if env is None else dict(env), cwd=cwd
    )
    # The older handshake: programs over stdio speak it, and the newer probe confuses some.
    connection = Client(started, mode="legacy")
    try:
        upstream = await connection.__aenter__()
    except BaseException as error:
        if not isinstance(error, Exception):
            raise
        raise RuntimeStartError(
            f"the tool server {name!r} ({' '.join(command)}) did not start: {error}"
        ) from error
    try:
        yield _server(name, upstream)
    finally:
        await connection.__aexit__(None, None, None)


def _server(name: str, upstream: Any) -> Any:
    from mcp.server.lowlevel.server import Server

    async def list_tools(_ctx: Any, params: Any) -> Any:
        return await upstream.list_tools(cursor=getattr(params, "cursor", None))

    async def call_tool(_ctx: Any, params: Any) -> Any:
        return await upstream.call_tool(params.name, params.arguments)

    async def list_resources(_ctx: Any, params: Any) -> Any:
        return await upstream.list_resources(cursor=getattr(params, "cursor", None))

    async def read_resource(_ctx: Any, params: Any) -> Any:
        return await upstream.read_resource(str(params.uri))

    offers: dict[str, Any] = {"on_list_tools": list_tools, "on_call_tool": call_tool}
    if upstream.server_capabilities.resources is not None:
        offers |= {"on_list_resources": list_resources, "on_read_resource": read_resource}
    return Server(name, instructions=upstream.instructions, **offers)
