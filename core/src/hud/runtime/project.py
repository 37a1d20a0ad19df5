"""Which folder a view covers, and which one a child works in."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

from hud.errors import SourceError


@dataclass(frozen=True, slots=True)
class Source:
    """A declaration on disk: `place` is its file or folder, `attribute` what to take from it, if said."""

    place: Path
    attribute: str | None = None

    @property
    def text(self) -> str:
        """What `load_environment` takes."""
        return f"{self.place}:{self.attribute}" if self.attribute else str(self.place)

    @property
    def folder(self) -> Path:
        """The folder an environment runs in: its declaration's."""
        return self.place if self.place.is_dir() else self.place.parent

    @property
    def project(self) -> Path:
        """The nearest folder that has a `hud.toml`, from the declaration's upwards; else that one itself."""
        for candidate in (self.folder, *self.folder.parents):
            if (candidate / "hud.toml").is_file():
                return candidate
        return self.folder


def resolved_source(text: str | Path) -> Source:
    """Return what `text` names: a file (`.py` may be left out), a folder, a module; any of these with `:attribute`.

    Raises:
        SourceError: there is none.
    """
    name, colon, attribute = str(text).rpartition(":")
    if not (colon and attribute.isidentifier() and len(name) > 1):
        name, attribute = str(text), ""
    path = Path(name).expanduser()
    candidates = [path, path.with_name(f"{path.name}.py")] if path.name else [path]
    if "." in name and "/" not in name and path.suffix != ".py":
        module = Path(*name.split("."))
        candidates += [module.with_suffix(".py"), module / "__init__.py"]
    for candidate in candidates:
        if candidate.exists():
            return Source(candidate.resolve(), attribute or None)
    raise SourceError(
        f"{text}: there is no such file, folder or module (looked in {Path.cwd()}); give the path of a declaration "
        "file, such as env.py"
    )


class Lower:
    """The files beside a declaration, as they were when the first rollout saw them.

    Rollouts that run see a file of the lower layer change unless they have written it themselves, which makes them
    hard to repeat; so it is worth a word. What this process's own output is redirected to is none of them.
    """

    LOOK_AGAIN_S = 1.0
    MOST = 500

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._output = _files_written_to()
        self._looked_at = time.monotonic()
        self._known = self._stamps()

    def edited(self) -> list[str]:
        """Return the names of files that changed since the last look; looks once a second at most."""
        if time.monotonic() - self._looked_at < self.LOOK_AGAIN_S:
            return []
        self._looked_at = time.monotonic()
        before, self._known = self._known, self._stamps()
        return sorted(name for name, stamp in self._known.items() if before.get(name, stamp) != stamp)

    def _stamps(self) -> dict[str, tuple[int, int]]:
        stamps: dict[str, tuple[int, int]] = {}
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in itertools.islice(entries, self.MOST):
                if not entry.name.startswith(".") and not entry.name.endswith(".py") and entry.is_file():
                    info = entry.stat()
                    if (info.st_dev, info.st_ino) not in self._output:
                        stamps[entry.name] = (info.st_mtime_ns, info.st_size)
        return stamps


def _files_written_to() -> set[tuple[int, int]]:
    """Return which files standard output and error are, as device and inode."""
    found = set()
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            info = os.fstat(descriptor)
            found.add((info.st_dev, info.st_ino))
    return found
