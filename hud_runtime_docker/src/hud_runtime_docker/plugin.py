"""What this distribution declares; imports nothing heavy."""

from __future__ import annotations

from hud.plugins import hookimpl
from hud.plugins.kinds import CommandKind, RuntimeKind


@hookimpl
def hud_runtimes() -> list[RuntimeKind]:
    """Declare the Docker runtime."""
    return [
        RuntimeKind(
            name="docker",
            target="hud_runtime_docker.runtime:DockerRuntime",
            summary="A fresh container per rollout, from an image of yours or any other",
            features={
                "image": True,
                "compose": True,
                "cpu": True,
                "memory": True,
                "storage": True,
                "gpu": True,
                "run_timeout": True,
            },
            url_schemes=("docker",),
            reaper="hud_runtime_docker.reaping:reap",
            exports={
                "hud.eval": {
                    "DockerRuntime": "hud_runtime_docker.runtime:DockerRuntime",
                    "DockerBindMount": "hud_runtime_docker.options:DockerBindMount",
                }
            },
        )
    ]


@hookimpl
def hud_commands() -> list[CommandKind]:
    """Declare `hud build`."""
    return [
        CommandKind(
            name="build",
            target="hud_runtime_docker.command:build",
            summary="Build an image of an environment.",
        )
    ]
