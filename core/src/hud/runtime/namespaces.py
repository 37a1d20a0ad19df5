"""Pid namespaces, each with a first process that waits, made ahead of need.

The first process is a shell and not the child that serves, because the kernel spares the first process of a
namespace most signals; it is exec'd, because a forked one would hold a megabyte. When it is killed the kernel
kills whatever else the namespace has.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from dataclasses import dataclass

from hud.runtime import linux

SPARES = 4

_INIT = (
    "trap '' CHLD TERM HUP INT; echo \"$1\" > /proc/sys/kernel/ns_last_pid; echo; exec >/dev/null; read -r _"
)
"""The namespace's first process: orphans are reaped (SIGCHLD is ignored) until its input ends with the zygote.

It also moves the namespace's process numbers on, so that children of one zygote have different ones: code that puts
its number into the name of a shared file would collide otherwise (pid_namespaces(7), ns_last_pid).
"""


@dataclass(slots=True)
class _Spare:
    init: int
    namespace: int
    """A descriptor of the namespace."""
    ready: int
    """A pipe's end that gets a line once `init` has set itself up."""


class PidNamespaces:
    """The spare namespaces of one zygote. `pulse` is a pipe's end that closes with the zygote."""

    def __init__(self, pulse: int) -> None:
        self._pulse = pulse
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._spares: deque[_Spare] = deque()
        self._count = 0
        if os.getuid() != 0:
            # For ns_last_pid; a child drops it with all others.
            with contextlib.suppress(OSError):
                linux.keep_over_exec(linux.CAP_SYS_ADMIN)

    def enter_next(self) -> int:
        """Have this process's next child born into a fresh namespace; return that one's first process."""
        if not self._spares:
            self._make()
        spare = self._spares.popleft()
        os.read(spare.ready, 1)
        os.close(spare.ready)
        linux.setns(spare.namespace, linux.NEW_PIDS)
        os.close(spare.namespace)
        return spare.init

    def refill(self) -> None:
        """Make spares for those that were used."""
        while len(self._spares) < SPARES:
            self._make()

    def _make(self) -> None:
        # The second call makes a namespace inside this process's own, so it must be back in it.
        linux.setns(self._own, linux.NEW_PIDS)
        linux.unshare(linux.NEW_PIDS)
        self._count += 1
        ready, announce = os.pipe()
        init = os.posix_spawn(
            "/bin/sh",
            ["hud-init", "-c", _INIT, "hud-init", str(100 + self._count % 30_000)],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, self._pulse, 0),
                (os.POSIX_SPAWN_DUP2, announce, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsid=True,
        )
        os.close(announce)
        namespace = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
        self._spares.append(_Spare(init, namespace, ready))
