"""Images of rows that name none: built from the folder their environment was declared in."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from hud.errors import HudError, UnsupportedConfigError
from hud.runtime.select import declaration_of

if TYPE_CHECKING:
    from hud.types import Task
    from hud_runtime_docker.engine import Engine

REPOSITORY = "hud-env"


class SourceImages:
    """Builds an image for each source once, or finds the one that was built from the same content before."""

    def __init__(self, engine: Engine, *, source: Path | None, base: str | None, port: int) -> None:
        self._engine = engine
        self._source = source
        self._base = base
        self._port = port
        self._built: dict[Path, str] = {}
        self._failed: dict[Path, HudError] = {}
        self._turn = anyio.Lock()  # unlike asyncio's, of no one loop

    def forget(self) -> None:
        """Look at the sources again: a job has one image for all of its rollouts, the next may have another."""
        self._built.clear()
        self._failed.clear()

    async def image_for(self, task: Task) -> str:
        """Return the image of `task`'s environment, built where there is none of the same content.

        Raises:
            UnsupportedConfigError: the row says neither image nor file.
            BuildError: the image cannot be built.
        """
        source = self._source or self._declared(task)
        async with self._turn:  # holds: one build at a time, and none twice
            if source in self._failed:
                raise self._failed[source]
            if source not in self._built:
                try:
                    self._built[source] = await self._build(source)
                except HudError as error:
                    if not error.retryable:
                        self._failed[source] = error  # the next row of the job need not wait for it again
                    raise
            return self._built[source]

    def _declared(self, task: Task) -> Path:
        declared = declaration_of(task) if task.source is not None else None
        if isinstance(declared, (str, Path)) and Path(declared).exists():
            return Path(declared).resolve()
        raise UnsupportedConfigError(
            f"task {task.slug!r} names no image, and no file an image could be built from; "
            "give DockerRuntime('my-env'), runtime_config.image, or a row whose environment is declared in a file"
        )

    async def _build(self, source: Path) -> str:
        from hud_runtime_docker import manifest
        from hud_runtime_docker.build import BuildRequest, build, find_built, image_name, plan

        request = BuildRequest(source, base=self._base, port=self._port)
        planned = await asyncio.to_thread(plan, request)
        if self._base is None:
            known = await self._engine.run(
                lambda: find_built(self._engine, planned.project, manifest.PROJECT)
            )
            if known is not None:  # by hand, perhaps on another base
                return known.id
        request.tags = (f"{REPOSITORY}/{image_name(request.folder.resolve().name)}:{planned.digest[:12]}",)
        return (await build(self._engine, request, _say)).id


def _say(line: str) -> None:
    if not line.startswith("unchanged"):
        print(f"build: {line}", file=sys.stderr, flush=True)
