"""What every container of ours says of itself, so that what an owner left behind can be found."""

from __future__ import annotations

import getpass
import os
import socket
import time
from pathlib import Path

from hud.types import RuntimeConfig, Task

OWNER = "hud.owner"


def owner() -> str:
    """Return who we are: machine, boot, user, process and its start, so that a reused pid is not mistaken for us."""
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}/{os.getuid()}/{os.getpid()}/{started}"


def labels_for(task: Task, config: RuntimeConfig) -> dict[str, str]:
    """Return the labels of a container for `task`."""
    labels = {
        OWNER: owner(),
        "hud.env": task.env,
        "hud.task": task.slug,
        "hud.created": str(int(time.time())),
        "hud.user": getpass.getuser(),
    }
    if config.limits is not None and config.limits.run_timeout_s is not None:
        labels["hud.deadline"] = str(int(time.time() + config.limits.run_timeout_s))
    return labels
