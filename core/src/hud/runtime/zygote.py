"""The process that imports an environment's module once and forks a child for each rollout.

It has one thread and no event loop. Requests come over a seqpacket socket, each with the child's own channel;
all that is said of a child goes over that channel, so that nobody waits for the zygote's attention.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

from hud.runtime import linux


class Zygote:
    """One environment's module, imported; `setup` is what the orchestrator sent."""

    def __init__(self, control: socket.socket, setup: dict[str, Any], *, containment: str) -> None:
        self.control = control
        self.setup = setup
        self.contained = containment == "namespaces"
        self.children: dict[int, int] = {}
        """pidfd -> process number, of children not yet reaped."""
        self.environment: Any = None
        self.author_descriptors: set[int] = set()
        # Children see in this pipe's end that their parent has gone.
        self.pulse_read, self._pulse_write = os.pipe()
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if self.contained else -1
        self._count = 0

    def run(self) -> None:
        """Prepare, say how that went, and serve fork requests until the orchestrator goes or nothing is asked."""
        linux.call_itself("hud-zygote")
        os.setsid()
        # What a process printed before it died must be in its file, and nothing twice after a fork.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True)
        if self.contained:
            self._own_mounts()
        else:
            linux.become_subreaper()
        before = _descriptors()
        from hud.runtime.preparation import prepare

        report, self.environment = prepare(self.setup)
        self.author_descriptors = _descriptors() - before
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
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        idle_s = float(self.setup["idle_s"])
        last_use = time.monotonic()
        while True:
            wait_s = 3600.0 if self.children else max(0.0, idle_s - (time.monotonic() - last_use))
            events = poll.poll(wait_s * 1000)
            if not events and not self.children:
                return
            for descriptor, _ in events:
                if descriptor in self.children:
                    poll.unregister(descriptor)
                    self._reap(descriptor)
                    last_use = time.monotonic()
                    continue
                message, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, 4)
                if not message:
                    return
                last_use = time.monotonic()
                if (pidfd := self._fork(json.loads(message), descriptors)) is not None:
                    poll.register(pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        os.waitpid(self.children.pop(pidfd), 0)
        os.close(pidfd)

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> int | None:
        channel = socket.socket(fileno=descriptors[0])
        self._count += 1
        request["number"] = self._count
        try:
            if self.contained:
                # The second call makes a namespace inside this process's own, so it must be back in it.
                linux.setns(self._own_pids, linux.NEW_PIDS)
                linux.unshare(linux.NEW_PIDS)
            pid = os.fork()
        except OSError as error:
            text = f"cannot fork a child: {error.strerror}"
            channel.send(json.dumps({"failed": {"type": "RuntimeStartError", "message": text}}).encode())
            channel.close()
            return None
        if pid == 0:
            from hud.runtime.zygote_child import run_child

            os.close(self._pulse_write)
            try:
                run_child(self, request, channel)
            finally:
                os._exit(70)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = pid
        with contextlib.suppress(OSError):
            socket.send_fds(channel, [b'{"forked":1}'], [pidfd])
        channel.close()
        return pidfd


def _descriptors() -> set[int]:
    # The listing's own descriptor is closed again by the time this returns.
    return {int(name) for name in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{name}").exists()}  # noqa: PTH208
