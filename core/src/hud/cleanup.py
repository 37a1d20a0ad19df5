"""Cleanup that a cancellation waits for, and that loses no connection."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_TURNS = 5
"""Turns of the loop from an accepted connection to the task that serves it, and from its end to its closed socket."""


async def shielded(work: Coroutine[Any, Any, None], *, within_s: float | None = None) -> None:
    """Finish `work` even when cancelled meanwhile; the cancellation follows.

    It holds against `Task.cancel`, which a scope of anyio cannot hold off, and against the scopes of anyio. Work that
    does not bound itself is given up after `within_s` seconds.
    """
    task = asyncio.ensure_future(work if within_s is None else _bounded(work, within_s))
    cancelled: asyncio.CancelledError | None = None
    with _from_scopes():
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                if task.cancelled():
                    raise
                cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def close_listener(server: asyncio.Server) -> None:
    """Accept no more, and close `server` in the next turn of its loop, once it has what was accepted before.

    asyncio hands a connection to its server a turn after it was accepted. A server that was closed in between refuses
    it with an assertion, and the connection stays open (`Server._attach` of CPython 3.11 to 3.13).
    """
    loop = server.get_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):  # others, such as uvloop's, close what they have accepted
        for sock in server.sockets:
            loop.remove_reader(sock.fileno())
    loop.call_soon(server.close)


async def turns() -> None:
    """Let the loop turn as often as connections need to begin and to end."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def _bounded(work: Coroutine[Any, Any, None], within_s: float) -> None:
    bound = asyncio.timeout(within_s)
    try:
        async with bound:
            await work
    except TimeoutError:
        if not bound.expired():
            raise


def _from_scopes() -> AbstractContextManager[Any]:
    """Return a shield from scopes of anyio; where that is not imported, there are none."""
    anyio = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
