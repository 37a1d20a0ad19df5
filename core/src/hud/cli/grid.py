"""Columns of text that fit a terminal."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Collection, Sequence

from hud.cli.terminal import Style, is_terminal, safe

NARROWEST = 6
STATES = {
    "running": ("cyan",),
    "finished": ("green",),
    "ended early": ("yellow",),
    "interrupted": ("yellow",),
    "unreadable": ("red",),
}
"""How a state's cell is coloured."""


def grid(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    flexible: Collection[int] = (),
    colours: bool = False,
    width: int | None = None,
) -> str:
    """Return rows aligned under their head; columns of `right` end at the same place.

    On a terminal that is too narrow the columns of `flexible` are cut; in a pipe nothing is.
    """
    style = Style(colours)
    cells = [[safe(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(_wide, column)) for column in zip(head, *cells, strict=True)]
    room = (width or _terminal_width()) - 2 * (len(head) - 1)
    while sum(widths) > room and (wide := [i for i in flexible if widths[i] > NARROWEST]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    lines = [style(_line(head, widths, right), "dim")]
    for row in cells:
        laid = _laid(row, widths, right)
        laid = [style(cell, *STATES.get(plain, ())) for cell, plain in zip(laid, row, strict=True)]
        lines.append("  ".join(laid).rstrip())
    return "\n".join(lines)


def _terminal_width() -> int:
    return shutil.get_terminal_size((120, 24)).columns if is_terminal(sys.stdout) else 10_000


def _line(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    return "  ".join(_laid(row, widths, right)).rstrip()


def _laid(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> list[str]:
    out = []
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        shown = _cut(cell, width)
        gap = " " * (width - _wide(shown))
        out.append(gap + shown if place in right else shown + gap)
    return out


def _cut(cell: str, width: int) -> str:
    if _wide(cell) <= width:
        return cell
    while cell and _wide(cell) > width - 1:
        cell = cell[:-1]
    return f"{cell}…"


def _wide(text: str) -> int:
    """Return how many columns a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
