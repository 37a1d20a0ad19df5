"""The replies graders got from models, kept in the job's file: an identical question is asked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.agents.callcache import MemoryCache
from hud.errors import StoreError

if TYPE_CHECKING:
    from hud.store.reader import JobFile
    from hud.store.writer import JobWriter


class JobVerdicts:
    """A cache of model calls in a job's file. `earlier` are files that know replies already: its own, when it goes on,
    or that of the job that is graded again.
    """

    def __init__(self, writer: JobWriter | None, earlier: Sequence[Path] = ()) -> None:
        self._writer = writer
        self._earlier = list(earlier)
        self._files: list[JobFile] | None = None
        self._memory = MemoryCache()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the reply kept under `key`, or None."""
        reply = self._memory.get(key)
        if reply is not None:
            return reply
        for file in self._opened():
            reply = file.verdict(key)
            if reply is not None:
                self.put(key, reply)
                return reply
        return None

    def put(self, key: str, reply: Mapping[str, Any]) -> None:
        """Keep a reply."""
        self._memory.put(key, reply)
        if self._writer is not None:
            self._writer.verdict(key, reply)

    def close(self) -> None:
        """Close the files of before."""
        for file in self._files or ():
            file.close()
        self._files = []

    def _opened(self) -> list[JobFile]:
        if self._files is None:
            from hud.store.reader import JobFile

            self._files = []
            for path in self._earlier:
                try:
                    self._files.append(JobFile(path))
                except StoreError:  # without it the question is asked once more
                    continue
        return self._files
