"""What every container of ours says of itself, so that what an owner left behind can be found."""

from __future__ import annotations

import getpass
import time

from hud.runtime.ledger import ledger
from hud.runtime.placing import PLACED_FOR
from hud.types import RuntimeConfig, Task

OWNER = "hud.owner"
"""The process that made it, as the ledger writes it."""


def owner() -> str:
    """Return who we are: machine, boot, user, process and its start, so that a reused number is not mistaken for us."""
    return ledger().owner


def labels_for(task: Task, config: RuntimeConfig) -> dict[str, str]:
    """Return the labels of a container for `task`; times are seconds since 1970."""
    labels = {
        OWNER: owner(),
        "hud.env": task.env,
        "hud.task": task.slug,
        "hud.created": str(int(time.time())),
        "hud.user": getpass.getuser(),
    }
    placed_for = PLACED_FOR.get()
    if placed_for is not None:
        labels |= {"hud.job": placed_for.job, "hud.run": placed_for.run}
    if config.limits is not None and config.limits.run_timeout_s is not None:
        labels["hud.deadline"] = str(int(time.time() + config.limits.run_timeout_s))
    return labels
