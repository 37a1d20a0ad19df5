"""What a rollout's environment prints: a file beside the job's, one a rollout, for `hud logs`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hud.runtime.output import OUTPUT
from hud.runtime.placing import PLACED_FOR, PlacedFor
from hud.store.finding import LOGS

if TYPE_CHECKING:
    from hud.eval.job import Job
    from hud.eval.run import Run


IN_PROCESS = "local:"

Mask: TypeAlias = Callable[[str], str]


class RunLogs:
    """The logs of one job, in `<job-id>.logs`; nothing where the job has no file. An empty one is not kept.

    A process writes to its log itself, so secrets are taken out once its rollout has ended.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._made: Path | None = None
        self._mask: Mask | None = None
        self._cleaning: set[asyncio.Future[None]] = set()
        self._cleaned: dict[Path, int] = {}
        """Sizes of logs in which there is no secret."""

    def begin(self, run: Run) -> Path | None:
        """Have the placements of the current task know the run and write to its log; return where, or None."""
        PLACED_FOR.set(PlacedFor(self._job.id, run.trace_id))
        folder = self._folder()
        if folder is None:
            return None
        path = folder / f"{run.trace_id}.log"
        OUTPUT.set(path)
        return path

    def end(self, path: Path | None, run: Run) -> None:
        """Drop the log of a run whose environment printed nothing, and clean another."""
        if path is None or run.runtime == IN_PROCESS:
            return
        with contextlib.suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()
                return
            cleaning = asyncio.get_running_loop().run_in_executor(None, self._clean, path)
            self._cleaning.add(cleaning)
            cleaning.add_done_callback(self._cleaning.discard)

    async def close(self) -> None:
        """Clean what placements of several rollouts wrote since, and drop the folder where no log is left in it."""
        if self._cleaning:
            await asyncio.wait(self._cleaning)
        if self._cleaned:
            await asyncio.to_thread(self._clean_again)
        if self._made is not None:
            with contextlib.suppress(OSError):
                self._made.rmdir()

    def _clean(self, path: Path) -> None:
        from hud.store.redact import clean_file, project_redactor

        if self._mask is None:
            self._mask = project_redactor()
        with contextlib.suppress(OSError):
            clean_file(path, self._mask)
            self._cleaned[path] = path.stat().st_size

    def _clean_again(self) -> None:
        for path, size in list(self._cleaned.items()):
            with contextlib.suppress(OSError):
                if path.stat().st_size != size:
                    self._clean(path)

    def _folder(self) -> Path | None:
        if self._made is None and self._job.path is not None:
            folder = self._job.path.with_suffix(LOGS).absolute()
            # A log that cannot be kept is no reason for a rollout not to run.
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                self._made = folder
        return self._made
