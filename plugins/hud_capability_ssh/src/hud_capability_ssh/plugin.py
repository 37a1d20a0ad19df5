"""What this distribution declares: the `ssh/2` family."""

from __future__ import annotations

from collections.abc import Iterable

from hud.plugins import CapabilityKind, hookimpl
from hud.plugins.events import Doctor, Finding


@hookimpl
def hud_capabilities() -> Iterable[CapabilityKind]:
    """Declare the shell."""
    return [
        CapabilityKind(
            name="ssh",
            summary="A sandboxed shell and files over ssh",
            protocols=("ssh/2",),
            client="hud_capability_ssh.client:SSHClient",
            backing="hud_capability_ssh.workspace:Workspace",
            tools="hud_capability_ssh.tools:tools_of",
            method="workspace",
            exports={
                "hud.environment": {
                    "Workspace": "hud_capability_ssh.workspace:Workspace",
                    "Mount": "hud_capability_ssh.mounts:Mount",
                    "MountKind": "hud_capability_ssh.mounts:MountKind",
                    "Peer": "hud_capability_ssh.peers:Peer",
                    "DEFAULT_SYSTEM_MOUNTS": "hud_capability_ssh.mounts:DEFAULT_SYSTEM_MOUNTS",
                },
                "hud.capabilities": {
                    "SSHClient": "hud_capability_ssh.client:SSHClient",
                    "SSHConnectionError": "hud_capability_ssh.errors:SSHConnectionError",
                },
            },
        )
    ]


@hookimpl
def hud_doctor(event: Doctor) -> Iterable[Finding]:  # noqa: ARG001 - the hook's argument
    """Say which engines can hold a workspace here."""
    from hud_capability_ssh.diagnosis import findings

    return findings()
