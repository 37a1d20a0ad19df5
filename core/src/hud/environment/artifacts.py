"""The built-in task that lets a controller fetch a template's artefacts, once the agent is gone.

Its start lets clients into the workspace again, as any start does, and says what is to be fetched; its grade closes
the workspace. It is in no manifest and has no cleanup of the environment's own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hud.environment.env import Environment
    from hud.environment.template import Template

TASK = "hud:artifacts"


def fetching(env: Environment) -> Template:
    """Return the task for `env`; its argument `template` names the one whose patterns are asked for."""
    from hud.environment.template import Template

    async def fetch(template: str) -> AsyncGenerator[Any, Any]:
        known = env.tasks.get(template)
        yield {"prompt": "", "artifacts": [] if known is None else list(known.artifacts)}
        yield 1.0

    return Template(env, fetch, id=TASK, description="Fetch what the agent left behind.")
