"""Begin to import an environment before its first rollout is placed, while the rest of the job is made ready."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hud.errors import HudError
from hud.runtime import linux, zygote_table
from hud.runtime.local import LocalRuntime
from hud.runtime.select import declaration_of

if TYPE_CHECKING:
    from hud.settings import Project
    from hud.types import Task


def begin_import(task: Task, project: Project) -> None:
    """Start the zygote of `task`'s environment where nothing known now says that it runs elsewhere.

    A plugin may still decide otherwise; what was started then ends with this process. Raises nothing: whatever is
    wrong is told when the rollout is placed.
    """
    elsewhere = task.runtime_config or project.runtime_default or project.route(task.env)
    if elsewhere or not linux.available():
        return
    try:
        source = declaration_of(task)
        if isinstance(source, (str, Path)):
            zygote_table.start_early(LocalRuntime(source, env=task.env).key())
    except (HudError, OSError):
        return
