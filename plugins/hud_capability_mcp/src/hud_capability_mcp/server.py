"""`ToolServer`: Python functions, or a server of one's own, served as a capability."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from hud.capability.tool import Tool
from hud.errors import ConfigError, RuntimeStartError
from hud.types import Capability

STOP_S = 5.0
PATH = "/mcp"


class ToolServer:
    """Serves typed functions, an `MCPServer`, a FastMCP server or a program on loopback, on a thread of its own.

    ```python
    env.tools(price_of, order)            # or: env.use(ToolServer(price_of, name="shop"))
    ```
    Plain functions run in threads, coroutine functions on the server's loop. `command` starts a program that speaks
    MCP over its standard streams (`["npx", "-y", "@modelcontextprotocol/server-filesystem", "data"]`), with `env` and
    in `cwd`; it runs beside the environment, outside of any sandbox. A token, made at each start, is asked for.
    """

    def __init__(
        self,
        *served: Any,
        name: str = "tools",
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        startup_timeout_s: float = 30.0,
    ) -> None:
        self.name = name
        self._served = served
        self._command = tuple(command)
        self._env = env
        self._cwd = cwd
        self._stopping = False
        self._startup_timeout_s = startup_timeout_s
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        servers = [item for item in served if _is_server(item)]
        if isinstance(command, str):
            raise ConfigError(f"env.tools(command={command!r}): give the program and its arguments as a list")
        if bool(served) == bool(self._command):
            raise ConfigError("env.tools() needs functions, one MCP server, or command=[...]")
        if servers and len(served) > 1:
            raise ConfigError(
                "env.tools() takes functions or one MCP server, not both; use two of them with name="
            )
        for item in served:
            if not servers and (isinstance(item, Tool) or not callable(item)):
                raise ConfigError(f"env.tools(): {item!r} is neither a function nor an MCP server")

    async def start(self) -> Sequence[Capability]:
        """Listen and return the manifest's entry.

        Raises:
            RuntimeStartError: the server failed, or did not listen in time.
        """
        token = secrets.token_urlsafe(32)
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        self._stopping, self._failure = False, None
        self._thread = threading.Thread(
            target=self._run, args=(listening, token), name=f"mcp server {self.name}", daemon=True
        )
        self._thread.start()
        try:
            await asyncio.to_thread(self._until_listening)
        except BaseException:
            await self.stop()
            raise
        return [Capability.mcp(name=self.name, url=f"http://127.0.0.1:{port}{PATH}", auth_token=token)]

    async def stop(self) -> None:
        """End the server; safe when it failed to start, and safe to call twice."""
        thread, self._thread = self._thread, None
        self._stopping = True
        if thread is None:
            return
        for force in (False, True):
            if self._server is not None:
                self._server.should_exit = True
                self._server.force_exit = force
            await asyncio.to_thread(thread.join, STOP_S)
            if not thread.is_alive():
                break
        self._server = None

    def _run(self, listening: socket.socket, token: str) -> None:
        try:
            asyncio.run(self._serve(listening, token))
        except BaseException as error:  # noqa: BLE001 - a thread has nobody above; start() tells it
            self._failure = error
        finally:
            listening.close()

    async def _serve(self, listening: socket.socket, token: str) -> None:
        import uvicorn

        async with AsyncExitStack() as stack:
            if self._command:
                from hud_capability_mcp.stdio import relayed

                relay = relayed(self.name, self._command, env=self._env, cwd=self._cwd)
                app = (await stack.enter_async_context(relay)).streamable_http_app(streamable_http_path=PATH)
            else:
                app = _app(self.name, self._served)
            if self._stopping:
                return
            self._server = uvicorn.Server(
                uvicorn.Config(
                    _guarded(app, token),
                    log_level="error",
                    access_log=False,
                    lifespan="on",
                    timeout_graceful_shutdown=1,
                    ws="none",
                )
            )
            await self._server.serve(sockets=[listening])

    def _until_listening(self) -> None:
        # The server says that it has started by an attribute only; it takes milliseconds.
        ends = time.monotonic() + self._startup_timeout_s
        while self._server is None or not self._server.started:
            if self._thread is None or not self._thread.is_alive():
                if isinstance(self._failure, RuntimeStartError):
                    raise self._failure
                raise RuntimeStartError(
                    f"the tool server {self.name!r} ended while it started: {self._failure!r}"
                )
            if time.monotonic() > ends:
                raise RuntimeStartError(
                    f"the tool server {self.name!r} did not listen within {self._startup_timeout_s:g} s"
                )
            time.sleep(0.005)


def _is_server(item: Any) -> bool:
    return hasattr(item, "streamable_http_app") or hasattr(item, "http_app")


def _app(name: str, served: Sequence[Any]) -> Any:
    first = served[0]
    if hasattr(first, "http_app"):  # FastMCP
        return first.http_app(path=PATH)
    if hasattr(first, "streamable_http_app"):
        return first.streamable_http_app(streamable_http_path=PATH)
    from mcp.server.mcpserver import MCPServer

    server: Any = MCPServer(name)
    for function in served:
        server.add_tool(_told(function), name=function.__name__, description=_description(function))
    return server.streamable_http_app(streamable_http_path=PATH)


def _description(function: Callable[..., Any]) -> str:
    import inspect

    return inspect.getdoc(function) or function.__name__


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function whose failures are told to the caller; a plain one runs in a thread."""
    import functools
    import inspect

    from mcp.server.mcpserver.exceptions import ToolError

    waits = inspect.iscoroutinefunction(function)

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            if waits:
                return await function(*args, **kwargs)
            return await asyncio.to_thread(function, *args, **kwargs)
        except ToolError:
            raise
        except Exception as error:
            # The SDK hides the text of any other error, which is the author's word to the agent.
            raise ToolError(f"{type(error).__name__}: {error}") from error

    return call


def _guarded(app: Any, token: str) -> Any:
    """Refuse requests without the token, before the server sees them."""
    expected = f"Bearer {token}".encode()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, expected):
                await send(
                    {"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]}
                )
                await send({"type": "http.response.body", "body": b""})
                return
        await app(scope, receive, send)

    return guarded
