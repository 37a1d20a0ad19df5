"""What changed in a workspace: between its start, each look and its end.

Nothing is watched: a look compares what `stat` says of each file, so that a tree at rest costs nothing, and a look
at 50,000 files a fraction of a second in a thread. Links are not followed, pipes and devices not opened.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hud_capability_ssh.tree import walk

SKIPPED = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "node_modules",
        "__pycache__",
        ".venv",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".cache",
    }
)
LARGEST_TEXT = 64 * 1024
ALL_TEXTS = 32 << 20
MOST_FILES = 100_000
MOST_CHANGES = 500
LARGEST_DIFF = 16 * 1024
ALL_DIFFS = 256 * 1024

Kind = Literal["added", "modified", "deleted"]
Entry = tuple[int, int, int, int]
"""Mode, size, time of the last change in ns, inode."""


@dataclass(slots=True, frozen=True)
class FileChange:
    """One file: `diff` is a unified one, None for binary or large files (`note` says which)."""

    path: str
    kind: Kind
    size: int
    diff: str | None = None
    note: str | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON's types, empty fields left out."""
        fields = {
            "path": self.path,
            "kind": self.kind,
            "size": self.size,
            "diff": self.diff,
            "note": self.note,
        }
        return {key: value for key, value in fields.items() if value is not None}


class FileTracker:
    """Looks at one folder. Its methods block: call them in a thread, one at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._first: dict[str, Entry] = {}
        self._last: dict[str, Entry] = {}
        self._first_texts: dict[str, bytes] = {}
        self._last_texts: dict[str, bytes | None] = {}
        self._texts_size = 0
        self.began = False

    def begin(self) -> None:
        """Take the tree as it is for its start, with its text files as far as 32 MB reach."""
        self._first = self._last = dict(_entries(self._root))
        for path, entry in self._first.items():
            if entry[1] <= LARGEST_TEXT and self._texts_size < ALL_TEXTS:
                text = self._text(path)
                if text is not None:
                    self._first_texts[path] = text
                    self._texts_size += len(text)
        self.began = True

    def since_last(self) -> list[FileChange]:
        """Return what changed since the look before."""
        before, self._last = self._last, dict(_entries(self._root))
        changes: list[FileChange] = []
        left = 0
        for path, kind in _compared(before, self._last):
            known = self._last_texts[path] if path in self._last_texts else self._first_texts.get(path)
            old = b"" if kind == "added" else known
            if len(changes) == MOST_CHANGES:
                left += 1
                self._last_texts[path] = None
                continue
            new = self._text(path) if kind != "deleted" else b""
            self._last_texts[path] = new if self._texts_size < ALL_TEXTS else None
            self._texts_size += len(self._last_texts[path] or b"")
            changes.append(self._change(path, kind, old, new, self._last.get(path)))
        return _bounded(changes, left, seen_whole=_is_whole(before, self._last))

    def since_start(self) -> list[FileChange]:
        """Return what changed since `begin`."""
        now = dict(_entries(self._root))
        changes: list[FileChange] = []
        left = 0
        for path, kind in _compared(self._first, now):
            if len(changes) == MOST_CHANGES:
                left += 1
                continue
            old = b"" if kind == "added" else self._first_texts.get(path)
            new = self._text(path) if kind != "deleted" else b""
            if kind == "modified" and old is not None and old == new:
                continue  # written again as it was
            changes.append(self._change(path, kind, old, new, now.get(path)))
        return _bounded(changes, left, seen_whole=_is_whole(self._first, now))

    def _change(
        self, path: str, kind: Kind, old: bytes | None, new: bytes | None, entry: Entry | None
    ) -> FileChange:
        size = entry[1] if entry is not None else 0
        if entry is not None and stat.S_ISLNK(entry[0]):
            return FileChange(path, kind, size, note="link")
        if old is None or new is None:
            return FileChange(path, kind, size, note="binary or large")
        return FileChange(path, kind, size, _difference(path, old, new))

    def _text(self, path: str) -> bytes | None:
        """Return a small text file's content; None for what is none."""
        try:
            fd = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_TEXT:
                return None
            raw = os.read(fd, LARGEST_TEXT)
        except OSError:
            return None
        finally:
            os.close(fd)
        return None if b"\0" in raw else raw


def _entries(root: Path) -> Iterator[tuple[str, Entry]]:
    """Yield every file below `root`, caches and version control left out, at most 100,000."""
    count = 0
    for path, _, entry in walk(root, skip=SKIPPED):
        if entry.is_dir(follow_symlinks=False):
            continue
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        count += 1
        if count > MOST_FILES:
            return
        yield path, (found.st_mode, found.st_size, found.st_ctime_ns, found.st_ino)


def _is_whole(*looks: dict[str, Entry]) -> bool:
    """Whether each found all files there were."""
    return all(len(look) < MOST_FILES for look in looks)


def _compared(before: dict[str, Entry], after: dict[str, Entry]) -> Iterator[tuple[str, Kind]]:
    for path in sorted(before.keys() | after.keys()):
        # What a look did not reach is neither new nor gone.
        if path not in before:
            if _is_whole(before):
                yield path, "added"
        elif path not in after:
            if _is_whole(after):
                yield path, "deleted"
        elif before[path] != after[path]:
            yield path, "modified"


def _difference(path: str, old: bytes, new: bytes) -> str:
    lines = difflib.unified_diff(
        old.decode("utf-8", "replace").splitlines(),
        new.decode("utf-8", "replace").splitlines(),
        f"a/{path}",
        f"b/{path}",
        lineterm="",
        n=2,
    )
    text = "\n".join(lines)
    return text if len(text) <= LARGEST_DIFF else text[:LARGEST_DIFF] + "\n[... cut]"


def _bounded(changes: list[FileChange], left: int, *, seen_whole: bool) -> list[FileChange]:
    """Keep the diffs as far as 256 KB reach, and say how many changes were `left` out."""
    room = ALL_DIFFS
    kept = []
    for change in changes:
        room -= len(change.diff or "")
        kept.append(
            change if room >= 0 else FileChange(change.path, change.kind, change.size, note="diff left out")
        )
    if left:
        kept.append(FileChange("...", "modified", 0, note=f"{left} more files"))
    if changes and not seen_whole:
        kept.append(
            FileChange("...", "modified", 0, note=f"only the first {MOST_FILES} files were looked at")
        )
    return kept
