"""What an image says of the environment it serves: labels that `docker inspect` shows and placements check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.errors import UnsupportedConfigError

if TYPE_CHECKING:
    from hud.types import Task

MANIFEST = "hud.manifest"
"""`{env: {name, version}, capabilities: [{name, protocol}], tasks: [{id, description, args}]}`."""
DIGEST = "hud.source"
"""A digest of everything the image was made of."""
PROJECT = "hud.project"
"""A digest of the project alone, whatever base and arguments it was built with."""


def manifest_of(client: Any, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a connected environment's manifest without anything that holds for one session only."""
    env = client.manifest.server_info
    return {
        "env": {"name": env.name, "version": env.version},
        "capabilities": [{"name": c.name, "protocol": c.protocol} for c in client.manifest.bindings],
        "tasks": tasks,
    }


def check(labels: Mapping[str, str] | None, task: Task, image: str) -> None:
    """Refuse a row that the image, by its own label, cannot serve; images without one are taken as they are.

    Raises:
        UnsupportedConfigError: names what the image has.
    """
    text = (labels or {}).get(MANIFEST)
    if text is None:
        return
    try:
        manifest = json.loads(text)
        name = manifest["env"]["name"]
        known = [entry["id"] for entry in manifest["tasks"]]
    except (ValueError, KeyError, TypeError):
        return  # another tool's label of the same name
    if task.env not in ("", name):
        raise UnsupportedConfigError(
            f"image {image!r} serves environment {name!r}, not {task.env!r}; build the one meant with `hud build`"
        )
    if task.id not in known:
        raise UnsupportedConfigError(
            f"image {image!r} has no task {task.id!r}; it has {', '.join(known) or 'none'}. "
            "If the source is newer, build it again with `hud build`"
        )
