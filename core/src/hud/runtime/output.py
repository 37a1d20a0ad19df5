"""Where the output of a rollout's process goes."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path

OUTPUT: ContextVar[Path | None] = ContextVar("hud_runtime_output", default=None)
"""The file a placement writes its process's output to. The engine sets it, and keeps the file; without it the
output lives as long as the placement."""
