"""The table a job ends with, as plain text."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from hud.cli.outcome import Tally, TaskScore

ROWS = 40
"""More tasks than this are cut to the lowest; --json has them all."""


def closing_table(tally: Tally, *, width: int | None = None) -> str:
    """Return a line per task and one for all, in columns; the lowest rewards only where there are many tasks."""
    scores = list(tally.tasks.values())
    hidden = max(len(scores) - ROWS, 0)
    if hidden:
        scores = sorted(scores, key=lambda s: (s.mean is not None, s.mean or 0.0, s.slug))[:ROWS]
    k = tally.group
    head = ["task", "runs", "mean", "s.e.", "pass@1"]
    if k > 1:
        head.append(f"pass@{k}")
    head += ["errors", "time"]
    lines = [_line(score, k) for score in scores]
    if len(tally.tasks) != 1:
        lines.append(_all_line(tally, k))
    text = columns([head, *lines], width=width or shutil.get_terminal_size((100, 24)).columns)
    if hidden:
        text += f"\n({hidden} more tasks with higher rewards; --json lists all)"
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


def _line(score: TaskScore, k: int) -> list[str]:
    cells = [
        score.slug,
        str(score.runs),
        number(score.mean),
        number(score.standard_error),
        number(score.pass_at(1)),
    ]
    if k > 1:
        cells.append(number(score.pass_at(k)))
    return [*cells, str(score.errors), duration(score.mean_seconds)]


def _all_line(tally: Tally, k: int) -> list[str]:
    name = f"all ({len(tally.tasks)} tasks)"
    cells = [
        name,
        str(tally.done),
        number(tally.mean),
        number(tally.standard_error),
        number(tally.pass_at(1)),
    ]
    if k > 1:
        cells.append(number(tally.pass_at(k)))
    return [*cells, str(tally.errors), duration(tally.elapsed_s)]
