"""What the wire's benchmarks talk to, each in a process of its own: `python wire_server.py KIND`.

Prints its port once it listens and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any


async def ask(word: str = "yes") -> AsyncGenerator[Any, Any]:
    """Say a word."""
    answer = yield f"Say {word}."
    yield 1.0 if answer == word else 0.0


class JsonEcho(asyncio.Protocol):
    """The floor: a bare protocol that reads a line of JSON and writes one."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        *lines, self.buffer = data.split(b"\n")
        for line in lines:
            frame = json.loads(line)
            reply = {"jsonrpc": "2.0", "id": frame["id"], "result": frame["params"]}
            self.transport.write(json.dumps(reply).encode() + b"\n")


class JsonStreams:
    """The other floor: the same over asyncio's streams."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            frame = json.loads(line)
            reply = {"jsonrpc": "2.0", "id": frame["id"], "result": frame["params"]}
            writer.write(json.dumps(reply).encode() + b"\n")
        writer.close()


async def serve(kind: str, argument: str) -> int:
    """Listen, and return the port."""
    loop = asyncio.get_running_loop()
    if kind == "json":
        return _port(await loop.create_server(JsonEcho, "127.0.0.1", 0, backlog=4096))
    if kind == "streams":
        return _port(await asyncio.start_server(JsonStreams().serve, "127.0.0.1", 0, backlog=4096))
    if kind == "splice":
        from tests.benchmarks.tunnel import BareSplice

        return _port(
            await loop.create_server(lambda: BareSplice(int(argument)), "127.0.0.1", 0, backlog=4096)
        )
    from hud.testing.service import FakeService
    from hud.types import Capability
    from hud.wire.server import start_server

    capabilities = [Capability("raw", "raw/1", f"raw://127.0.0.1:{argument}")] if argument else []
    service: Any = FakeService({"ask": ask}, name="bench", capabilities=capabilities)
    return (await start_server(service)).port


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def until_orphaned() -> None:
    """Wait for the end of standard input."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)  # nobody writes to it
    await ended.wait()


async def main(kind: str, argument: str = "") -> None:
    print(await serve(kind, argument), flush=True)
    await until_orphaned()


def beside_author() -> None:
    """Serve a real environment as `hud serve` does: author code on the main thread, the wire on another."""
    from hud.environment import Environment, serving
    from hud.environment.author import AuthorLoop, run_beside
    from hud.wire.server import start_server

    env = Environment(name="bench")
    env.template(id="ask")(ask)

    async def serve_it(author: AuthorLoop) -> None:
        async with serving(env, author=author) as service, await start_server(service) as server:
            print(server.port, flush=True)
            await until_orphaned()

    run_beside(serve_it)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    if sys.argv[1] == "environment":
        beside_author()
    elif sys.argv[1] == "source":
        from tests.benchmarks.tunnel import serve_source

        serve_source()
    else:
        asyncio.run(main(*sys.argv[1:]))
