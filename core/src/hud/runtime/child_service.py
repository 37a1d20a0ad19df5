"""Serving inside a child: the wire on a second thread's loop, author code on the main thread's."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hud.environment.author import AuthorLoop


def serve_child(environment: Any, request: dict[str, Any], channel: socket.socket) -> None:
    """Serve `environment` until the orchestrator shuts the channel's other end down."""
    from hud.environment.author import run_beside

    async def main(author: AuthorLoop) -> None:
        from hud.environment.service import serving
        from hud.wire.server import start_server

        async with serving(environment, author=author) as service:
            where: dict[str, Any] = {"unix_path": request["socket"]} if request["socket"] else {}
            server = await start_server(service, token=request["token"], **where)
            try:
                channel.setblocking(False)
                channel.send(json.dumps({"ready": server.url}).encode())
                await asyncio.get_running_loop().sock_recv(channel, 64)
            finally:
                await server.close()

    run_beside(main)
