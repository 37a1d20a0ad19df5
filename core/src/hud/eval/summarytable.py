"""The table a job ends with, as plain text."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hud.eval.stats import JobSummary, TaskSummary

ROWS = 40
"""More tasks than this are cut to the lowest; --json has them all."""


def closing_table(
    summary: JobSummary, *, group: int | None = None, seconds: float | None = None, width: int | None = None
) -> str:
    """Return a line per task in the rows' order and one for all; of many tasks those with the lowest rewards.

    `group` is the number of attempts at a row, by default the most that a task has; `seconds` what the whole job took.
    """
    tasks = summary.in_order()
    if group is None:
        group = max((task.runs for task in tasks), default=1)
    hidden = max(len(tasks) - ROWS, 0)
    if hidden:
        tasks = sorted(tasks, key=_lowest_first)[:ROWS]
    head = ["task", "runs", "mean", "s.e.", "pass@1", *_more(group, f"pass@{group}"), "errors", "time"]
    lines = [_line(task, group) for task in tasks]
    if len(summary.tasks) != 1 or summary.others.runs:
        lines.append(_all_line(summary, group, seconds))
    text = columns([head, *lines], width=width or shutil.get_terminal_size((100, 24)).columns)
    if hidden:
        text += f"\n({hidden} more tasks with higher rewards; --json lists all)"
    if summary.others.runs:
        text += f"\n({summary.others.runs} runs are of further tasks, counted in the last line alone)"
    return text


def columns(rows: Sequence[Sequence[str]], *, width: int) -> str:
    """Align `rows` under the first: the first column left and cut to what `width` leaves, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    room = width - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = max(min(widths[0], room), 8)
    lines = []
    for row in rows:
        first = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
        rest = "".join(f"  {cell:>{widths[i]}}" for i, cell in enumerate(row[1:], start=1))
        lines.append(f"{first:<{widths[0]}}{rest}".rstrip())
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Return three decimals, or a dash for what is not known."""
    return "-" if value is None else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Return a duration as people write it: 0.12 s, 12.3 s, 4:05, 1:02:03."""
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _lowest_first(task: TaskSummary) -> tuple[bool, float, str]:
    mean = task.mean
    return mean is not None, mean or 0.0, task.slug


def _more(group: int, cell: str) -> list[str]:
    return [cell] if group > 1 else []


def _line(task: TaskSummary, group: int) -> list[str]:
    return [
        task.slug,
        str(task.runs),
        number(task.mean),
        number(task.standard_error),
        number(task.pass_at(1)),
        *_more(group, number(task.pass_at(group))),
        str(task.errors),
        duration(task.seconds / task.runs if task.runs else 0.0),
    ]


def _all_line(summary: JobSummary, group: int, seconds: float | None) -> list[str]:
    return [
        f"all ({len(summary.tasks)}{'+' if summary.others.runs else ''} tasks)",
        str(summary.runs),
        number(summary.mean),
        number(summary.standard_error),
        number(summary.pass_at(1)),
        *_more(group, number(summary.pass_at(group))),
        str(summary.errors),
        "-" if seconds is None else duration(seconds),
    ]
