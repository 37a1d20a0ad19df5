"""A simulated provider on a thread of its own, for tests without a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hud.testing.llm.server import ModelServer
from hud.testing.llm.turns import Responder, Turn


@contextmanager
def serving(respond: Responder | Turn, **options: Any) -> Iterator[ModelServer]:
    """Serve `ModelServer(respond, **options)` until the block ends."""
    server = ModelServer(respond, **options)
    ready = threading.Event()
    ending: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with server:
            stop = asyncio.Event()
            ending.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="simulated provider")
    thread.start()
    try:
        if not ready.wait(30):
            raise TimeoutError("the simulated provider did not start within 30 s")
        yield server
    finally:
        for loop, stop in ending:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
