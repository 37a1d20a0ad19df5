"""What a rollout's environment prints: a file beside the job's, one a rollout, for `hud logs`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from hud.runtime.output import OUTPUT
from hud.runtime.placing import PLACED_FOR, PlacedFor

if TYPE_CHECKING:
    from hud.eval.job import Job
    from hud.eval.run import Run


IN_PROCESS = "local:"


class RunLogs:
    """The logs of one job, in `<job-id>.logs`; nothing where the job has no file. An empty one is not kept."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._made: Path | None = None

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
        """Drop the log of a run whose environment printed nothing; one served in this process has none."""
        if path is not None and run.runtime != IN_PROCESS:
            with contextlib.suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()

    def close(self) -> None:
        """Drop the folder where no log is left in it."""
        if self._made is not None:
            with contextlib.suppress(OSError):
                self._made.rmdir()

    def _folder(self) -> Path | None:
        if self._made is None and self._job.path is not None:
            folder = self._job.path.with_suffix(".logs").absolute()
            # A log that cannot be kept is no reason for a rollout not to run.
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                self._made = folder
        return self._made
