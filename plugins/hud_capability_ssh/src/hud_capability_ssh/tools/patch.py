"""Patches: V4A (`*** Begin Patch`) and unified diffs, taken apart and applied to text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["add", "update", "delete"]
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")


class PatchError(ValueError):
    """Raised when a patch cannot be read or does not fit; names file and line."""


@dataclass(slots=True)
class Hunk:
    """Lines to find (`old`) and what replaces them (`new`); `at` is a hint (0-based), `anchors` lines before it."""

    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    at: int | None = None
    anchors: list[str] = field(default_factory=list)
    at_end: bool = False


@dataclass(slots=True)
class Change:
    """What happens to one file. `target` is `path` unless it moves."""

    kind: Kind
    path: str
    target: str
    hunks: list[Hunk] = field(default_factory=list)
    content: str = ""
    end_of_line: bool | None = None
    """Whether the last line is to end with a line break; None leaves it as it is."""


def parsed(patch: str) -> list[Change]:
    """Read either form.

    Raises:
        PatchError: it is neither, or a line in it cannot be read.
    """
    lines = patch.replace("\r\n", "\n").split("\n")
    if any(line.strip() == "*** Begin Patch" for line in lines):
        changes = _v4a(lines)
    elif any(line.startswith("+++ ") for line in lines):
        changes = _unified(lines)
    else:
        raise PatchError("neither a `*** Begin Patch` block nor a unified diff")
    if not changes:
        raise PatchError("the patch names no file")
    return changes


def _v4a(lines: list[str]) -> list[Change]:
    start = next(at for at, line in enumerate(lines) if line.strip() == "*** Begin Patch")
    changes: list[Change] = []
    hunk: Hunk | None = None
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if line.strip() == "*** End Patch":
            return changes
        for kind, head in (
            ("add", "*** Add File: "),
            ("update", "*** Update File: "),
            ("delete", "*** Delete File: "),
        ):
            if line.startswith(head):
                path = line.removeprefix(head).strip()
                changes.append(Change(kind, path, path))  # type: ignore[arg-type] # one of the three above
                hunk = None
                break
        else:
            if not changes:
                raise PatchError(f"line {number}: {line[:80]!r} stands before any file")
            hunk = _v4a_line(changes[-1], hunk, line, number)
    raise PatchError("`*** End Patch` is missing")


def _v4a_line(change: Change, hunk: Hunk | None, line: str, number: int) -> Hunk | None:
    if change.kind == "add":
        if not line.startswith("+"):
            if not line.strip():
                return hunk
            raise PatchError(f"line {number}: lines of a new file begin with '+', not {line[:40]!r}")
        change.content += line[1:] + "\n"
        return hunk
    if change.kind == "delete":
        if line.strip():
            raise PatchError(f"line {number}: nothing follows a deleted file, but {line[:40]!r} does")
        return hunk
    if line.startswith("*** Move to: "):
        change.target = line.removeprefix("*** Move to: ").strip()
        return hunk
    if line.startswith("@@"):
        anchor = line[2:].strip()
        if hunk is None or hunk.old or hunk.new:
            hunk = Hunk()
            change.hunks.append(hunk)
        if anchor:
            hunk.anchors.append(anchor)
        return hunk
    if line.strip() == "*** End of File":
        if hunk is not None:
            hunk.at_end = True
        return hunk
    if hunk is None:
        hunk = Hunk()
        change.hunks.append(hunk)
    _body(hunk, line, number)
    return hunk


def _unified(lines: list[str]) -> list[Change]:
    changes: list[Change] = []
    hunk: Hunk | None = None
    old_path = ""
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if _names_file(lines, at - 1, hunk):
            old_path, new_path = _diff_path(line[4:]), _diff_path(lines[at][4:])
            at += 1
            kind: Kind = (
                "add" if old_path == "/dev/null" else "delete" if new_path == "/dev/null" else "update"
            )
            path = new_path if kind == "add" else old_path
            changes.append(Change(kind, path, path if kind == "delete" else new_path))
            hunk = None
        elif match := _HUNK.match(line):
            if not changes:
                raise PatchError(f"line {at}: a hunk before any file")
            hunk = Hunk(at=max(0, int(match[1]) - 1))
            changes[-1].hunks.append(hunk)
        elif line.startswith("\\ No newline"):
            changes[-1].end_of_line = None if not changes else changes[-1].end_of_line
            if lines[at - 2].startswith("+"):
                changes[-1].end_of_line = False
        elif (hunk is not None and line[:1] in ("+", "-", " ")) or (
            hunk is not None and not line and at < len(lines)
        ):
            _body(hunk, line, at)
        elif line.startswith(
            ("diff ", "index ", "new file", "deleted file", "similarity", "rename ", "old mode", "new mode")
        ):
            hunk = None
    for change in changes:
        if change.kind == "add":
            text = "\n".join(line for part in change.hunks for line in part.new)
            change.content = text + ("" if change.end_of_line is False or not text else "\n")
    return changes


def _names_file(lines: list[str], at: int, hunk: Hunk | None) -> bool:
    """Whether a file's two lines begin here; within a hunk they may be a removed `-- ` and an added `++ `."""
    after = lines[at + 1 : at + 3]
    if not (lines[at].startswith("--- ") and after and after[0].startswith("+++ ")):
        return False
    return hunk is None or (len(after) > 1 and after[1].startswith("@@ "))


def _diff_path(text: str) -> str:
    path = text.split("\t", maxsplit=1)[0].strip().strip('"')
    return path if path == "/dev/null" or path[:2] not in ("a/", "b/") else path[2:]


def _body(hunk: Hunk, line: str, number: int) -> None:
    mark, rest = line[:1], line[1:]
    if mark == "+":
        hunk.new.append(rest)
    elif mark == "-":
        hunk.old.append(rest)
    elif mark in (" ", ""):
        hunk.old.append(rest)
        hunk.new.append(rest)
    else:
        raise PatchError(f"line {number}: {line[:60]!r} must begin with ' ', '+' or '-'")


def applied(change: Change, before: str) -> str | None:
    """Return the file's new content, None where it is deleted.

    Raises:
        PatchError: a hunk's lines are not found.
    """
    if change.kind == "delete":
        return None
    if change.kind == "add":
        return change.content
    carriage = "\r\n" in before
    lines = before.replace("\r\n", "\n").split("\n") if carriage else before.split("\n")
    ends = lines[-1] == ""
    if ends:
        lines.pop()
    at = shift = 0
    for hunk in change.hunks:
        while hunk.old and hunk.new and hunk.old[-1] == hunk.new[-1] == "" and not _fits(lines, hunk.old):
            hunk.old.pop()  # an empty line that ended the patch's text, not the file's
            hunk.new.pop()
        for anchor in hunk.anchors:
            at = _anchored(lines, anchor, at, change.path)
        place = _place(lines, hunk, at, shift, change.path)
        lines[place : place + len(hunk.old)] = hunk.new
        at = place + len(hunk.new)
        shift += len(hunk.new) - len(hunk.old)
    ends = ends if change.end_of_line is None else change.end_of_line
    after = "\n".join(lines) + ("\n" if ends and lines else "")
    return after.replace("\n", "\r\n") if carriage else after


def _fits(lines: list[str], wanted: list[str]) -> bool:
    return any(lines[at : at + len(wanted)] == wanted for at in range(len(lines) - len(wanted) + 1))


def _anchored(lines: list[str], anchor: str, start: int, path: str) -> int:
    order: list[int] = [*range(start, len(lines)), *range(start)]
    for at in order:
        if lines[at].strip() == anchor:
            return at + 1
    for at in range(start, len(lines)):
        if anchor in lines[at]:
            return at + 1
    raise PatchError(f"{path}: no line {anchor!r} to find the change by")


def _place(lines: list[str], hunk: Hunk, start: int, shift: int, path: str) -> int:
    """Return where a hunk's old lines stand: exactly, else with trailing, else with any white space ignored."""
    size = len(hunk.old)
    if not size:
        if hunk.at is not None:
            return min(hunk.at + shift + (1 if hunk.at else 0), len(lines))
        return len(lines) if hunk.at_end or not hunk.anchors else start
    spots = list(range(len(lines) - size + 1))
    if hunk.at is not None:
        hint = hunk.at + shift
        spots.sort(key=lambda at: abs(at - hint))
    elif hunk.at_end:
        spots.reverse()
    else:
        spots = [at for at in spots if at >= start] + [at for at in spots if at < start]
    looser: tuple[Callable[[str], str], ...] = (str, str.rstrip, str.strip)
    for same in looser:
        wanted = [same(line) for line in hunk.old]
        for at in spots:
            if [same(line) for line in lines[at : at + size]] == wanted:
                if same is not str:
                    _keep_context(lines, hunk, at)
                return at
    raise PatchError(
        f"{path}: these lines were not found: {hunk.old[0].strip()[:80]!r} and {size - 1} after it"
    )


def _keep_context(lines: list[str], hunk: Hunk, at: int) -> None:
    """Where white space differed, leave the file's own context lines as they are."""
    own = dict(zip(hunk.old, lines[at : at + len(hunk.old)], strict=True))
    hunk.new = [own.get(line, line) for line in hunk.new]
