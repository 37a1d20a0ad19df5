"""The process that imports an environment's module once and forks a child for each rollout.

It has one thread and no event loop. Requests come over a seqpacket socket, each with the child's own channel;
all that is said of a child goes over that channel, and its closing says that nothing of the child is left.

With namespaces, a child and all it starts live in a pid namespace of its own (`hud.runtime.namespaces`), whose first
process is killed when the child has ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import io
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from hud.runtime import linux
from hud.runtime.namespaces import PidNamespaces


@dataclass(slots=True)
class Child:
    """A child until nothing is left of it. `init` is the first process of its namespace, 0 where it has none."""

    channel: socket.socket
    server: int
    init: int


class Zygote:
    """One environment's module, imported; `setup` is what the orchestrator sent."""

    def __init__(self, control: socket.socket, setup: dict[str, Any], *, containment: str) -> None:
        self.control = control
        self.setup = setup
        self.contained: bool = containment == "namespaces"
        self.environment: Any = None
        self.author_descriptors: set[int] = set()
        # Children see in this pipe's end that their parent has gone.
        self.pulse_read, self._pulse_write = os.pipe()
        self._poll = select.poll()
        self._servers: dict[int, Child] = {}
        self._inits: dict[int, Child] = {}
        self._namespaces = PidNamespaces(self.pulse_read) if self.contained else None

    def run(self) -> None:
        """Prepare, say how that went, and serve fork requests until the orchestrator goes or nothing is asked."""
        linux.call_itself("hud-zygote")
        os.setsid()
        # The last words of a crash: where it was.
        faulthandler.enable(all_threads=False)
        # What a process printed before it died must be in its file, and nothing twice after a fork.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True)
        if self.contained:
            self._own_mounts()
        else:
            linux.become_subreaper()
        before = linux.open_descriptors()
        from hud.runtime.preparation import prepare

        report, self.environment = prepare(self.setup)
        self.author_descriptors = linux.open_descriptors() - before
        sys.stdout.flush()
        gc.collect()
        gc.freeze()
        # What it makes while it forks is freed by reference counts; a collection would only touch shared pages.
        gc.disable()
        self.control.send(json.dumps(report).encode())
        if "ready" in report:
            self._serve()

    def _own_mounts(self) -> None:
        with contextlib.suppress(OSError):
            linux.unshare(linux.NEW_MOUNTS)
            linux.follow_mounts_privately()
            linux.mount_proc()

    def _serve(self) -> None:
        self._poll.register(self.control, select.POLLIN)
        idle_s = float(self.setup["idle_s"])
        last_use = time.monotonic()
        while True:
            busy = bool(self._servers or self._inits)
            wait_s = 3600.0 if busy else max(0.0, idle_s - (time.monotonic() - last_use))
            events = self._poll.poll(wait_s * 1000)
            if not events and not busy:
                return
            for descriptor, _ in events:
                last_use = time.monotonic()
                if descriptor in self._servers:
                    self._server_ended(descriptor)
                elif descriptor in self._inits:
                    self._init_ended(descriptor)
                else:
                    message, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, 4)
                    if not message:
                        return
                    # Descriptors arrive inheritable (unix(7)), and then this one would outlive its child.
                    os.set_inheritable(descriptors[0], False)
                    self._fork(json.loads(message), socket.socket(fileno=descriptors[0]))
                    if self._namespaces is not None:
                        # Where the next fork has to make its own, its error says why it could not.
                        with contextlib.suppress(OSError):
                            self._namespaces.refill()

    def _fork(self, request: dict[str, Any], channel: socket.socket) -> None:
        try:
            init = self._namespaces.enter_next() if self._namespaces is not None else 0
            pid = os.fork()
        except OSError as error:
            text = f"cannot fork a child: {error.strerror}"
            failed = {"type": "RuntimeStartError", "message": text, "errno": error.errno}
            tell(channel, {"failed": failed})
            channel.close()
            return
        if pid == 0:
            from hud.runtime.zygote_child import run_child

            os.close(self._pulse_write)
            try:
                run_child(self, request, channel)
            finally:
                os._exit(70)
        child = Child(channel, pid, init)
        pidfd = os.pidfd_open(pid)
        self._servers[pidfd] = child
        self._poll.register(pidfd, select.POLLIN)
        with contextlib.suppress(OSError):
            socket.send_fds(channel, [b'{"forked":1}'], [pidfd])

    def _server_ended(self, pidfd: int) -> None:
        child = self._servers.pop(pidfd)
        self._forget(pidfd)
        _, status = os.waitpid(child.server, 0)
        if not child.init:
            # Its own init process has told how it ended, and killed the rest.
            child.channel.close()
            return
        tell(child.channel, {"ended": os.waitstatus_to_exitcode(status)})
        os.kill(child.init, signal.SIGKILL)
        init = os.pidfd_open(child.init)
        self._inits[init] = child
        self._poll.register(init, select.POLLIN)

    def _init_ended(self, pidfd: int) -> None:
        child = self._inits.pop(pidfd)
        self._forget(pidfd)
        os.waitpid(child.init, 0)
        child.channel.close()

    def _forget(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)


def tell(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send a message about a child; nobody may be listening any more, and then nobody needs to know."""
    with contextlib.suppress(OSError):
        channel.send(json.dumps(message).encode())
