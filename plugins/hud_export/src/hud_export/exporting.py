"""Choosing a format and writing a file that appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hud.errors import UsageError
from hud.store.finding import find_job
from hud.store.lines import whole_file, write_lines
from hud.store.reader import JobFile


def _lines(file: JobFile, target: Path) -> None:
    write_lines(file, target)


def _parquet(file: JobFile, target: Path) -> None:
    from hud_export.parquet import write_parquet

    with whole_file(target) as part:
        write_parquet(file, part)


def _inspect(file: JobFile, target: Path) -> None:
    from hud_export.inspect_log import write_inspect_log

    with whole_file(target) as part:
        write_inspect_log(file, part)


FORMATS: dict[str, Callable[[JobFile, Path], None]] = {"jsonl": _lines, "parquet": _parquet, "eval": _inspect}
"""What writes each format, by its name, which is also its suffix."""


def format_of(target: Path) -> str:
    """Return the format a file's name asks for.

    Raises:
        UsageError: its suffix is none of ours.
    """
    name = target.suffix.removeprefix(".")
    if name not in FORMATS:
        raise UsageError(f"{target}: say what to write with --format {'|'.join(FORMATS)}, or end the name so")
    return name


def export_job(reference: str | Path, target: Path, *, format_name: str | None = None) -> Path:
    """Write a job, given as an id, its beginning or a file, to `target`; its suffix chooses the format by default.

    Raises:
        StoreError: there is no such job, or `target` cannot be written.
        UsageError: no such format.
    """
    chosen = format_name or format_of(target)
    if chosen not in FORMATS:
        raise UsageError(f"no format {chosen!r}; there is: {', '.join(FORMATS)}")
    with JobFile(find_job(reference)) as file:
        FORMATS[chosen](file, target)
    return target
