"""Tracebacks as their author should see them: without our frames and the import system's."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import FrameType
from typing import Any

_OURS = str(Path(__file__).resolve().parent.parent) + "/"
_KITS = f"{_OURS}testing/"  # its templates are an author's
_STDLIB = str(Path(traceback.__file__).resolve().parent) + "/"
_FRAMES = ("cr_frame", "ag_frame", "gi_frame")
_AWAITED = ("cr_await", "ag_await", "gi_yieldfrom")
_HIDDEN = ("<frozen importlib", "<frozen runpy", f"{_STDLIB}importlib/", f"{_STDLIB}asyncio/")


def is_ours(filename: str) -> bool:
    """Whether a frame of `filename` is the product's or the import system's own."""
    if filename.startswith(_OURS):
        return not filename.startswith(_KITS)
    return filename.startswith(_HIDDEN)


def author_traceback(error: BaseException) -> str:
    """Return the traceback of `error` with the author's frames only, causes and contexts included."""
    report = traceback.TracebackException.from_exception(error)
    _strip(report, set())
    return "".join(report.format())


def author_location(error: BaseException) -> str:
    """Return `file:line, in function` of the author's innermost frame, or nothing where there is none."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not is_ours(frame.f_code.co_filename):
            place = f"{frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
    return place


def line_within(error: BaseException, file: str) -> int | None:
    """Return the line of `file` that `error` came from, the innermost of several, or None."""
    lines = [
        line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file
    ]
    return lines[-1] if lines else None


def describe(error: BaseException) -> str:
    """Return `Type: message`, and `Type` with where it was raised where the message is empty."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ of the author's must not hide the error
        text = "(its message cannot be made)"
    if isinstance(error, SystemExit):
        text = f"code {error.code!r}"
    if text:
        return f"{name}: {text}"
    place = author_location(error)
    return f"{name} without a message" + (f" at {place}" if place else "")


def stack_of_thread(frame: FrameType) -> str:
    """Return the stack of a running thread, without our frames."""
    stack = [entry for entry in traceback.extract_stack(frame) if not is_ours(entry.filename)]
    first = next((i for i, entry in enumerate(stack) if not entry.filename.startswith(_STDLIB)), len(stack))
    return "".join(traceback.format_list(stack[first:]))


def stack_of_waiting(generator: Any) -> str:
    """Return where a suspended async generator waits: its own frame, then those of what it awaits."""
    frames: list[tuple[FrameType, int]] = []
    frame = getattr(generator, "ag_frame", None)
    waiting = getattr(generator, "ag_await", None)
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = next((f for name in _FRAMES if (f := getattr(waiting, name, None)) is not None), None)
        waiting = next((w for name in _AWAITED if (w := getattr(waiting, name, None)) is not None), None)
    return "".join(traceback.format_list(traceback.StackSummary.extract(iter(frames))))


def _strip(report: traceback.TracebackException, seen: set[int]) -> None:
    if id(report) in seen:
        return
    seen.add(id(report))
    kept = [frame for frame in report.stack if not is_ours(frame.filename)]
    report.stack = traceback.StackSummary.from_list(kept)
    for other in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        if other is not None:
            _strip(other, seen)
