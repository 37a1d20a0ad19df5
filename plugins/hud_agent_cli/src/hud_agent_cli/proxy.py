"""The way from a program inside a workspace to its model: it has a token, the proxy has the key."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import httpx

from hud.agents.limiter import OVERLOADED, RATE_LIMITED, limiter_for
from hud.agents.modelcall import NO_MONEY, error_text, refused
from hud.agents.reserving import FREE, Reservation
from hud.agents.routing import Route
from hud.cleanup import close_listener, shielded, turns
from hud.errors import BudgetExhaustedError
from hud_agent_cli.metering import Counts, asked

if TYPE_CHECKING:
    from hud.eval.run import Run

_HOP = frozenset(
    {
        "host",
        "connection",
        "keep-alive",
        "transfer-encoding",
        "content-length",
        "accept-encoding",
        "content-encoding",
        "authorization",
        "x-api-key",
        "x-goog-api-key",
        "upgrade",
        "proxy-authorization",
    }
)
WAITED_FOR = OVERLOADED | {RATE_LIMITED}
KEY_REFUSED = frozenset({401, 403})
LONGEST_BODY = 64 * 1024 * 1024
ENDING_S = 10.0


class ModelProxy:
    """Listens on loopback for one rollout and passes requests on to `route`; use it with `async with`.

    Only requests that carry `token`, as the key they would send, are passed on. `calls` counts them. With `run` each
    reserves from the job's budget; `refused` is why one was not passed on. Rate limits are waited for here, since the
    program knows nothing of the other rollouts.
    """

    def __init__(self, route: Route, run: Run | None = None) -> None:
        self.route = route
        self.run = run
        self.refused: BudgetExhaustedError | None = None
        self.answered = False
        """Whether the model has answered any call."""
        self.status: int | None = None
        """The HTTP status of its latest reply."""
        self.token = secrets.token_urlsafe(24)
        self.calls = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._client: httpx.AsyncClient | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(600.0, connect=15.0))
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1024 * 1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await shielded(self._end())

    async def _end(self) -> None:
        if self._server is not None:
            close_listener(self._server)
            await turns()
        with anyio.move_on_after(ENDING_S):
            while self._connections:
                for task in list(self._connections):
                    task.cancel()
                # A cancellation that meets the end of a connect within anyio is lost: it is said again.
                await asyncio.wait(self._connections, timeout=1.0)
        if self._client is not None:
            with anyio.move_on_after(ENDING_S):
                await self._client.aclose()
                await turns()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except asyncio.CancelledError:  # the rollout ended
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the program went away: the connection is all there was
        finally:
            self._connections.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for line in head[1:]
            if ":" in line
            for name, value in [line.split(":", 1)]
        }
        body = await _body(reader, headers)
        if not self._knows(headers):
            writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            return True
        self.calls += 1
        call = asked(body, self.route.model)
        request = self._request(method, target, headers, body)
        if call is None:
            await self._pass_on(self._sent(request), writer)
        elif self.run is None:
            await self._pass_on(self._admitted(request), writer)
        else:
            try:
                held = await self.run.reserve(**call)
            except BudgetExhaustedError as error:
                self.refused = error
                await _refuse(writer, str(error))
                return False
            with held:
                await self._pass_on(self._admitted(request), writer, held)
        return headers.get("connection", "").lower() != "close"

    def _knows(self, headers: Mapping[str, str]) -> bool:
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        given = headers.get("x-api-key") or headers.get("x-goog-api-key") or bearer
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _request(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> httpx.Request:
        assert self._client is not None
        base = self.route.base_url.rstrip("/")
        if base.endswith("/v1") and target.startswith("/v1/"):
            target = target.removeprefix("/v1")
        sent = {name: value for name, value in headers.items() if name not in _HOP}
        sent |= self.route.headers
        sent["anthropic-version"] = headers.get("anthropic-version", sent.get("anthropic-version", ""))
        if not sent["anthropic-version"]:
            del sent["anthropic-version"]
        return self._client.build_request(method, base + target, headers=sent, content=body)

    async def _sent(self, request: httpx.Request) -> httpx.Response:
        assert self._client is not None
        return await self._client.send(request, stream=True)

    async def _admitted(self, request: httpx.Request) -> httpx.Response:
        """Send a call of the model when the limiter that all rollouts share says; a rate limit is waited for here."""
        route = self.route
        limiter = limiter_for(route.base_url, route.model, route.api_key)

        async def attempt() -> httpx.Response:
            response = await self._sent(request)
            received = {name.lower(): value for name, value in response.headers.items()}
            limiter.observe(received)
            if response.status_code not in WAITED_FOR:
                return response
            text = (await response.aread()).decode(errors="replace")
            if NO_MONEY in text:
                return response
            raise refused(route, response.status_code, text, received)

        return await limiter.call(attempt)

    async def _pass_on(
        self,
        answer: Coroutine[Any, Any, httpx.Response],
        writer: asyncio.StreamWriter,
        held: Reservation = FREE,
    ) -> None:
        counts = Counts()
        begun = False
        try:
            response = await answer
            self.status = response.status_code
            self.answered = self.answered or response.is_success
            try:
                if response.status_code in KEY_REFUSED:
                    why = error_text((await response.aread()).decode(errors="replace"))
                    await _refuse(writer, f"the provider refused the key: HTTP {response.status_code}: {why}")
                    return
                kept = [
                    f"{name}: {value}" for name, value in response.headers.items() if name.lower() not in _HOP
                ]
                lines = [f"HTTP/1.1 {response.status_code} Upstream", *kept, "transfer-encoding: chunked"]
                begun = True
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
                async for part in response.aiter_bytes():
                    counts.look(part)
                    writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                    await writer.drain()
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            if not begun:
                why = f"the provider cannot be reached: {type(error).__name__}"
                await _say(writer, "502 Bad Gateway", "api_error", why)
            raise OSError("the provider's answer broke off") from error
        held.settle(
            counts.usage(self.route.model)
        )  # before the program can tell of the reply, which counts it too
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _refuse(writer: asyncio.StreamWriter, why: str) -> None:
    """Answer so that no program tries again."""
    await _say(writer, "400 Bad Request", "invalid_request_error", why)


async def _say(writer: asyncio.StreamWriter, status: str, kind: str, why: str) -> None:
    text = json.dumps({"error": {"type": kind, "message": why}}).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    writer.write(head.encode() + text)
    await writer.drain()


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", "").lower():
        length = int(headers.get("content-length") or 0)
        if length > LONGEST_BODY:
            raise ValueError("a request of a model that long")
        return await reader.readexactly(length)
    parts: list[bytes] = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
        if sum(map(len, parts)) > LONGEST_BODY:
            raise ValueError("a request of a model that long")
    await reader.readline()
    return b"".join(parts)
