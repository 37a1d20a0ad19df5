"""One line of the table of figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Row:
    """`ours` and `floor` are measured in the same run, in `unit`; `floor_name` says what the floor is.

    `more_is_better` tells how to read the ratio; `target` is the wished-for value of `ours`, for size only.
    """

    work: str
    ours: float
    floor: float | None
    unit: str
    floor_name: str = ""
    more_is_better: bool = False
    target: str = ""
    note: str = ""
