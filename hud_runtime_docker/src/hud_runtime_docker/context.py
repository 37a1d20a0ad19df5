"""What of a folder goes into an image: files after `.dockerignore`, their digest, and their archive."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ALWAYS_OUT = (
    "**/.git",
    "**/.hud",
    "**/.venv",
    "**/venv",
    "**/node_modules",
    "**/__pycache__",
    "**/*.pyc",
    "**/.mypy_cache",
    "**/.pytest_cache",
    "**/.ruff_cache",
    ".env",
    "solutions.py",
)
"""Left out of every image; a later `!pattern` of the project's own .dockerignore brings one back.

`solutions.py` holds reference solutions, which are read on the agent's side only.
"""


@dataclass(slots=True)
class BuildContext:
    """The files of `folder` that an image may be made of, folders included, sorted."""

    folder: Path
    files: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, dockerfile: str | None = None, *, ignore: str | None = None) -> BuildContext:
        """Walk `folder`, honouring `<ignore>.dockerignore`, else `.dockerignore`, as the Docker command does.

        `dockerfile` is always in.
        """
        from docker.utils.build import PatternMatcher

        matcher = PatternMatcher([*ALWAYS_OUT, *ignore_patterns(folder, ignore or dockerfile)])
        files = set(matcher.walk(str(folder)))
        if dockerfile is not None:
            files.add(dockerfile)
        return cls(folder, sorted(files))

    def digest(self) -> str:
        """Return a hash of paths, contents, links and execute bits; times and owners do not count."""
        whole = hashlib.sha256()
        for name in self.files:
            path = self.folder / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                content = f"link {path.readlink()}".encode()
            elif stat.S_ISREG(mode):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").digest()
            else:
                content = b"folder"
            whole.update(f"{name}\0{bool(mode & 0o100)}\0".encode() + content + b"\n")
        return whole.hexdigest()

    def archive(
        self, into: IO[bytes], *, under: str = "", extra: Mapping[str, bytes | Path] | None = None
    ) -> None:
        """Write the files below `under`, and `extra` (path to content or file), as a tar that is the same each time."""
        with tarfile.open(fileobj=into, mode="w") as tar:
            for name in self.files:
                add_path(tar, f"{under}{name}", self.folder / name)
            for name, content in (extra or {}).items():
                if isinstance(content, Path):
                    add_path(tar, name, content)
                else:
                    add_bytes(tar, name, content)


def ignore_patterns(folder: Path, dockerfile: str | None) -> list[str]:
    """Return the lines of the ignore file that counts for `dockerfile`, or none."""
    names = [f"{dockerfile}.dockerignore"] if dockerfile else []
    for name in [*names, ".dockerignore"]:
        path = folder / name
        if path.is_file():
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            return [line for line in lines if line and not line.startswith("#")]
    return []


def add_path(tar: tarfile.TarFile, name: str, path: Path, *, owner: tuple[int, int] = (0, 0)) -> None:
    """Add a file, link or folder of no certain time, so that layers of equal content are one layer.

    Sockets, pipes and devices are no part of an image and are left out.
    """
    found = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode = stat.S_IMODE(found.st_mode)
    entry.uid, entry.gid = owner
    if stat.S_ISLNK(found.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
        tar.addfile(entry)
    elif stat.S_ISDIR(found.st_mode):
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    elif stat.S_ISREG(found.st_mode):
        with path.open("rb") as file:
            entry.size = os.fstat(file.fileno()).st_size
            tar.addfile(entry, file)


def add_bytes(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    """Add a file with `content`."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
