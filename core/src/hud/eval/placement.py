"""How a row's place is reached, and how many rollouts it takes at once."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from hud.runtime.contract import Delegate, Features, Runtime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from hud.eval.deadlines import Deadlines
    from hud.eval.hosting import GraderModels
    from hud.eval.phases import Connector
    from hud.eval.run import Run
    from hud.runtime.admission import Capacity
    from hud.types.task import Task

OF_CLOUD = 32
OF_ADDRESS = 16
CONTAINERS_PER_CORE = 2
LOCAL_PER_CORE = 4


def is_delegate(runtime: Any) -> bool:
    """Tell whether `runtime` drives whole rollouts elsewhere."""
    return not callable(runtime) and isinstance(runtime, Delegate)


def connector_for(
    deadlines: Deadlines,
    models: GraderModels,
    *,
    workspace_routes: Sequence[Any] = (),
    connections: Sequence[Any] = (),
) -> Connector:
    """Return what connects to a row's placement, the row's start sent along with the hello."""
    from hud.wire.client import connect
    from hud.wire.settings import ClientSettings

    # The rollout's own timer bounds these; a second one would cost as much again.
    settings = ClientSettings(start_s=math.inf, grade_s=math.inf)

    def connector(runtime: Runtime, task: Task, run: Run) -> AbstractAsyncContextManager[Any]:
        return connect(
            runtime,
            ready_timeout=deadlines.connect,
            workspace_routes=workspace_routes,
            connections=connections,
            host_model=models.for_run(run),
            settings=settings,
            prestart=(task.id, task.args) if task is run.task else None,  # a verifier gets artefacts first
        )

    return connector


def most_at_once(provider: Any) -> Capacity | None:
    """Return how many processes of `provider` this machine holds now; None where it does not make them here."""
    features = getattr(provider, "features", None)
    elsewhere = not isinstance(features, Features) or features.remote or features.image
    if elsewhere or not getattr(provider, "is_file", True):
        return None
    from hud.runtime.admission import local_capacity

    return local_capacity()


def default_concurrency(provider: Any) -> int:
    """Return how many rollouts a placement takes at once unless the user says (`max_concurrent`).

    What it declares itself (`max_concurrent`, the `width` of `Shared`), else by where it runs: a local process what
    memory holds and at most 4 per core, a container 2 per core, a cloud 32, an address 16.
    """
    for name in ("max_concurrent", "width", "size"):
        declared = getattr(provider, name, None)
        if isinstance(declared, int) and not isinstance(declared, bool) and declared > 0:
            return declared
    if isinstance(provider, Runtime):
        return OF_ADDRESS
    inner = getattr(provider, "inner", None)
    if inner is not None:
        return default_concurrency(inner)
    features = getattr(provider, "features", None)
    cores = os.cpu_count() or 1
    if not isinstance(features, Features):
        return OF_ADDRESS
    if features.remote:
        return OF_CLOUD
    if features.image:
        return CONTAINERS_PER_CORE * cores
    held = most_at_once(provider)
    return LOCAL_PER_CORE * cores if held is None else max(1, min(LOCAL_PER_CORE * cores, held.children))
