"""A job's file as a source of runs and sums."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.eval.record import run_of
from hud.eval.stats import JobSummary
from hud.store.reader import JobFile

if TYPE_CHECKING:
    from hud.eval.run import Run
    from hud.eval.runlist import RunList
    from hud.store.tables import Place


class StoredJob:
    """Reads what is asked for when it is asked for; a file of lines or a damaged one is read once, into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: JobFile | None = None

    @contextmanager
    def open(self) -> Iterator[JobFile]:
        """Give the file, open."""
        if self._held is not None:
            yield self._held
            return
        file = JobFile(self.path)
        try:
            yield file
        finally:
            if file.is_copy:
                self._held = file
                weakref.finalize(self, file.close)
            else:
                file.close()

    def header(self) -> dict[str, Any]:
        """Return the job's own record."""
        with self.open() as file:
            return file.job()

    def totals(self) -> JobSummary:
        """Return the sums of what has finished."""
        found = JobSummary()
        with self.open() as file:
            for sums in file.tasks():
                found.take(sums)
        return found

    def fill(self, runs: RunList) -> None:
        """Put the places of what has finished into `runs`, which reads each when it is asked for."""
        runs.load, runs.load_all = self.load, self.load_all
        with self.open() as file:
            for light in file.runs(state="finished"):
                runs.put_place(light["place"], (light["run_id"], 0))

    def load(self, place: Place) -> Run:
        """Return the run at a place."""
        with self.open() as file:
            return run_of(file.record(place[0]))

    def load_all(self, places: Sequence[Place]) -> list[Run]:
        """Return the runs at several places."""
        with self.open() as file:
            return [run_of(file.record(place[0])) for place in places]
