"""One container from its intent to its removal, whatever happens in between."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import anyio

from hud.cleanup import shielded
from hud.errors import HudError, RuntimeStartError
from hud.runtime.ledger import Entry, ledger
from hud_runtime_docker.engine import Engine

KIND = "docker"
REMOVE_TIMEOUT_S = 30.0


@asynccontextmanager
async def created(engine: Engine, options: Mapping[str, Any]) -> AsyncIterator[str]:
    """Create a container of the SDK's `create_container` arguments and remove it at the end; yields its name.

    Its name is in the ledger before it is made. A create that is cut off midway may still happen, so it is seen to its
    end, and the removal finds the container by its name, whatever came back.

    Raises:
        RuntimeStartError: the engine refuses, or the container could not be removed within 30 s; then it stays in the
            ledger, for the next start or `hud reap`.
    """
    holding = _Holding(engine, f"hud-{uuid4().hex[:20]}")
    try:
        await shielded(holding.make(options))
        yield holding.name
    finally:
        await shielded(holding.remove())


class _Holding:
    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.entry: Entry | None = None

    async def make(self, options: Mapping[str, Any]) -> None:
        detail = {"engine": self.engine.base_url}
        self.entry = await ledger().intended(KIND, self.name, detail=detail)
        made = await self.engine.call("create_container", name=self.name, **options)
        self.entry.created(str(made["Id"]))

    async def remove(self) -> None:
        """Remove the container and its anonymous volumes, however far it came."""
        if self.entry is None:
            return
        import docker.errors

        began = time.monotonic()
        failure: HudError | None = None
        while time.monotonic() - began < REMOVE_TIMEOUT_S:
            try:
                with anyio.move_on_after(REMOVE_TIMEOUT_S):
                    await self.engine.call("remove_container", self.name, v=True, force=True)
                    self.entry.removed()
                    return
            except docker.errors.NotFound:
                self.entry.removed()
                return
            except HudError as error:
                failure = error
                await anyio.sleep(0.25)  # the engine restarts, or removes it already
        raise RuntimeStartError(
            f"container {self.name} could not be removed within {REMOVE_TIMEOUT_S:g} s"
            f"{f' ({failure})' if failure else ''}; `hud reap` removes it once this process has ended"
        )
