"""Names to one import each."""

from __future__ import annotations

from typing import Any


def exported(module: str, name: str) -> Any | None:  # noqa: ARG001
    """Return what a plugin exports as `name` under `module`, or None where no plugin's table has it."""
    return None
