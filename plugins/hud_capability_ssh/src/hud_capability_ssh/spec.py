"""What a sandbox is asked to be, for either engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hud_capability_ssh.belongings import Folder
from hud_capability_ssh.limits import Limits
from hud_capability_ssh.mounts import DEFAULT_SYSTEM_MOUNTS, Mount

BASH = "/bin/bash"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True, frozen=True, kw_only=True)
class SandboxSpec:
    """One sandbox: `root` of the host is `guest_path` inside; `guest_home` is empty memory.

    `owner` is the host's uid and gid that the sandbox is mapped to; None is the serving user's. `files` exist
    read-only at their guest paths, as content or as a file or folder of the host. `host_names` are those of
    services on its loopback. `box` is where an engine that
    mounts nothing keeps home and temporary files. `bash` are the words that start it.
    """

    name: str
    root: Path
    guest_path: str = "/workspace"
    root_writable: bool = True
    guest_home: str = "/home/agent"
    mounts: tuple[Mount, ...] = ()
    system_mounts: tuple[Mount, ...] = DEFAULT_SYSTEM_MOUNTS
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    owner: tuple[int, int] | None = None
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    host_names: tuple[str, ...] = ()
    box: Folder | None = None
    root_in_memory: bool = False
    bash: tuple[str, ...] = (BASH,)

    def shell(self, *arguments: str) -> list[str]:
        """Return the words of a shell that reads no start-up file."""
        return [*self.bash, "--norc", "--noprofile", *arguments]

    def environment(self) -> dict[str, str]:
        """Return all that a command's environment holds: an allow-list, and what the author set."""
        return {
            "PATH": SYSTEM_PATH,
            "HOME": self.guest_home,
            "USER": "agent",
            "LOGNAME": "agent",
            "SHELL": BASH if self.bash == (BASH,) else "/bin/sh",
            "LANG": "C.UTF-8",
            "HOSTNAME": self.name,
            **self.env,
        }
