"""What a placement is made for, so that it can say so in its labels."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlacedFor:
    """The job and the rollout by their ids."""

    job: str
    run: str


PLACED_FOR: ContextVar[PlacedFor | None] = ContextVar("hud_runtime_placed_for", default=None)
"""What the current task places for. The engine sets it; None for a placement somebody makes by hand."""
