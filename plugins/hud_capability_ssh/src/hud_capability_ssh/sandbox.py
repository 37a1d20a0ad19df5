"""A running sandbox: one spawner, and everything that lives below it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hud.cleanup import close_listener
from hud.errors import SandboxError
from hud_capability_ssh import bubblewrap, landlock
from hud_capability_ssh.link import SpawnerLink
from hud_capability_ssh.memory_group import MemoryGroup
from hud_capability_ssh.spec import SandboxSpec
from hud_capability_ssh.watch import Watch

SIGKILL = 9
MOST_DRAINED = 256
DRAINED_AT_ONCE = 16
START_TIMEOUT_S = 60.0
LONGEST_ARGUMENT = 120_000
"""Linux takes 128 KiB for one argument: a longer script goes through a file."""


class Child:
    """A command inside. `stdin`, `stdout`, `stderr` are our ends of its pipes, or all its terminal's master.

    Who spawned it owns the descriptors. `wait` returns (exit status, signal), of which one is meant.
    """

    def __init__(self, sandbox: Sandbox, ident: int) -> None:
        self.sandbox = sandbox
        self.ident = ident
        self.pid = 0
        self.stdin = self.stdout = self.stderr = -1
        self.note: str | None = None
        self.ended: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self.memory_kills = sandbox.memory_kills()
        self._notes = len(sandbox.notes)

    async def wait(self) -> tuple[int, int]:
        """Return how it ended, once what it wrote is within the disk limit or everything was ended for it."""
        how = await asyncio.shield(self.ended)
        await self.sandbox.judge_disk()
        return how

    def out_of_memory(self) -> bool:
        """Whether something of this sandbox was killed for memory since this command began."""
        return self.sandbox.memory_kills() > self.memory_kills

    def notes(self) -> list[str]:
        """Return what was done to this sandbox since this command began, in words for who runs it."""
        return self.sandbox.notes[self._notes :]

    async def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        await self.sandbox.link.ask("signal", self.ident, number, False, 0)

    async def kill(self, since_ticks: int = 0) -> None:
        """Kill all it ever started, wherever that went; with `since_ticks`, what is younger, and not its leader."""
        await self.sandbox.link.ask("signal", self.ident, SIGKILL, True, since_ticks)

    def close(self) -> None:
        """Close our ends of its pipes."""
        for fd in {self.stdin, self.stdout, self.stderr} - {-1}:
            os.close(fd)
        self.stdin = self.stdout = self.stderr = -1


class Sandbox:
    """Made by `start`, ended by `close`. `dead` is set once the spawner is gone; nothing works after that."""

    def __init__(
        self, spec: SandboxSpec, engine: str, process: subprocess.Popen[bytes], link: SpawnerLink
    ) -> None:
        self.spec = spec
        self.engine = engine
        self.process = process
        self.link = link
        self.dead = asyncio.Event()
        self.killed_for_memory = 0
        self.on_end: Callable[[], None] | None = None
        self._drained: dict[int, None] = {}
        self._group: MemoryGroup | None = None
        self._joined: asyncio.Task[None] | None = None
        self._watch: Watch | None = None
        self.notes: list[str] = []
        self.servers: list[asyncio.Server] = []
        """Listeners on its loopback that end with it."""
        link.on_end = self._ended

    @classmethod
    async def start(cls, spec: SandboxSpec, engine: str = bubblewrap.NAME) -> Sandbox:
        """Start one with `engine`: `bubblewrap`, `landlock` (as is `none`, which confines nothing).

        Raises:
            SandboxError: it could not be made; has the engine's own complaint.
        """
        if engine != bubblewrap.NAME:
            spec = landlock.adapted(spec)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = os.memfd_create("errors", os.MFD_CLOEXEC)
        facts, tell = os.pipe()
        key = secrets.randbits(31), secrets.randbits(31)
        try:
            try:
                with theirs:
                    if engine == bubblewrap.NAME:
                        process = bubblewrap.start(spec, theirs.fileno(), errors, tell, key)
                    else:
                        confined = engine == landlock.NAME
                        process = landlock.start(spec, theirs.fileno(), errors, key, confined=confined)
            except BaseException:
                ours.close()
                if spec.box is not None:
                    spec.box.remove()
                raise
            finally:
                os.close(tell)
            sandbox = cls(spec, engine, process, SpawnerLink(ours, asyncio.get_running_loop()))
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await sandbox._set_up(facts, key)
            except BaseException as error:
                process.kill()
                await sandbox.close()
                if isinstance(error, (SandboxError, OSError, TimeoutError)):
                    said = os.pread(errors, 4096, 0).decode(errors="replace").strip()
                    raise SandboxError(f"the {engine} sandbox did not start: {said or error}") from error
                raise
            return sandbox
        finally:
            os.close(errors)
            os.close(facts)

    async def _set_up(self, facts: int, key: tuple[int, int]) -> None:
        limits = self.spec.limits
        named = self.engine == bubblewrap.NAME
        if named:
            # Before the spawner is up: joining a control group takes as long as its start.
            spawner = await _told_spawner(facts)
            self.hold_memory(spawner)
        folders = bubblewrap.memory_folders(self.spec) if named else []
        answer, _ = await self.link.ask(
            "setup", limits.processes, limits.disk, limits.open_files, key, folders
        )
        if not named:
            # Without a pid namespace the spawner's own number is the one it has here.
            spawner = int(answer[0])
            self.hold_memory(spawner)
        if limits.cpus is not None:
            # From here: inside, nobody can choose.
            usable = sorted(os.sched_getaffinity(spawner))
            os.sched_setaffinity(spawner, usable[: max(1, round(limits.cpus))])

    def hold_memory(self, spawner: int) -> None:
        """Have the kernel hold the memory limit for all that process `spawner` starts, or do it by looking."""
        self._group = MemoryGroup.create(self.spec.limits.memory)
        if self._group is not None:
            joining = asyncio.to_thread(self._group.add, spawner)
            self._joined = asyncio.get_running_loop().create_task(joining)
        self._watch = Watch(self, holds_memory=self._group is None, tell=self.notes.append)

    async def judge_disk(self) -> None:
        """Hold the disk limit now, where it is held by looking."""
        if self._watch is not None:
            await self._watch.judge()

    def memory_kills(self) -> int:
        """Return how often something was killed because the memory limit was reached."""
        return self.killed_for_memory + (0 if self._group is None else self._group.kills())

    async def _ready(self) -> None:
        if self._joined is not None:
            joined, self._joined = self._joined, None
            try:
                await joined
            except OSError:
                # The group cannot be joined after all: then by looking.
                self._watch = Watch(self, holds_memory=True, tell=self.notes.append)
        if self._watch is not None:
            self._watch.wake()

    async def spawn(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        tty: bool = False,
    ) -> Child:
        """Start a command: text runs in bash without any start-up file, a sequence as it is.

        Raises:
            FileNotFoundError: the program or `cwd` does not exist.
            SandboxError: the sandbox has ended.
        """
        await self._ready()
        script = b""
        if isinstance(command, str) and len(command) > LONGEST_ARGUMENT // 4:
            script = command.encode(errors="surrogateescape")
            argv = self.spec.shell("/proc/self/fd/3")
        else:
            argv = self.spec.shell("-c", command) if isinstance(command, str) else list(command)
        child = Child(self, self.link.next_id())
        self.link.expect_end(child.ident, lambda status, number: _settle(child.ended, status, number))
        given: list[int] = []
        try:
            if tty and self.engine == landlock.NAME:
                # Nothing inside can open it; it becomes the command's terminal all the same.
                given, tty = self._terminal(child), False
            elif not tty:
                given = self._pipes(child)
            if script:
                given.append(os.memfd_create("script", os.MFD_CLOEXEC))
                os.write(given[-1], script)
                os.lseek(given[-1], 0, os.SEEK_SET)
            answer, fds = await self.link.ask(
                "spawn",
                child.ident,
                [os.fsencode(word) for word in argv],
                {
                    os.fsencode(k): os.fsencode(v)
                    for k, v in {**self.spec.environment(), **(env or {})}.items()
                },
                os.fsencode(cwd or self.spec.guest_path),
                tty,
                fds=given,
            )
            child.pid, child.note = int(answer[0]), answer[1]
            if tty:
                os.set_blocking(fds[0], False)
                child.stdin = child.stdout = child.stderr = fds[0]
        except BaseException:
            self.link.forget_end(child.ident)
            child.close()
            # Cancelled while it was being started: requests are served in order, so this one finds it.
            self.link.post("signal", child.ident, SIGKILL, True, 0)
            raise
        finally:
            for fd in given:
                os.close(fd)
        return child

    def _pipes(self, child: Child) -> list[int]:
        read_in, child.stdin = os.pipe()
        child.stdout, write_out = os.pipe()
        child.stderr, write_err = os.pipe()
        for fd in (child.stdin, child.stdout, child.stderr):
            os.set_blocking(fd, False)
        if self.spec.owner is not None:
            # So that `/dev/stdout` can be opened again by its user inside.
            for fd in (read_in, write_out, write_err):
                os.fchown(fd, *self.spec.owner)
        return [read_in, write_out, write_err]

    def _terminal(self, child: Child) -> list[int]:
        master, slave = os.openpty()
        os.set_blocking(master, False)
        child.stdin = child.stdout = child.stderr = master
        if self.spec.owner is not None:
            os.fchown(slave, *self.spec.owner)
        return [slave, os.dup(slave), os.dup(slave)]

    def drain(self, fd: int, write: Callable[[bytes], None]) -> None:
        """Pass on what a pipe holds; while something in the background still has it, read on and drop that.

        The sandbox owns `fd` from here on.
        """
        if _read_all(fd, write):
            os.close(fd)
            return
        loop = asyncio.get_running_loop()
        if len(self._drained) >= MOST_DRAINED:
            self._drop(next(iter(self._drained)))
        self._drained[fd] = None
        loop.add_reader(fd, self._drain_more, fd)

    def _drain_more(self, fd: int) -> None:
        if _read_all(fd, _nothing, DRAINED_AT_ONCE):
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        self._drained.pop(fd, None)
        os.close(fd)

    async def kill_everything(self) -> None:
        """End every process inside; the sandbox itself stays."""
        await self.link.ask("everything", SIGKILL)

    # Files, as a process inside would find them.

    async def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """Return a descriptor of a regular file or folder, which the caller owns; anything else is refused."""
        _, fds = await self.link.ask("open", self._path(path), flags, mode)
        return fds[0]

    async def stat(self, path: str, *, follow: bool = True) -> list[int]:
        """Return mode, size, uid, gid, atime, mtime (ns), links, inode."""
        answer, _ = await self.link.ask("stat", self._path(path), follow)
        return [int(value) for value in answer[0]]

    async def names(self, path: str) -> list[tuple[str, list[int]]]:
        """Return a folder's entries and what `lstat` says of each."""
        _, fds = await self.link.ask("names", self._path(path))
        with os.fdopen(fds[0], "rb") as listing:
            size = os.fstat(listing.fileno()).st_size
            found: list[Any] = json.loads(os.pread(listing.fileno(), min(size, 1 << 28), 0))
        return [(str(name), [int(v) for v in values]) for name, values in found]

    async def change(self, verb: str, *args: Any) -> list[Any]:
        """Do one of the short file calls by its name in `os`; paths are absolute."""
        answer, _ = await self.link.ask("change", verb, *args)
        return answer

    def _path(self, path: str) -> bytes:
        return os.fsencode(path if path.startswith("/") else f"{self.spec.guest_path}/{path}")

    def _ended(self) -> None:
        self.dead.set()
        if self.on_end is not None:
            self.on_end()

    async def close(self) -> None:
        """End it and everything inside; returns when its processes are gone. Safe to call twice."""
        self.link.close()
        while self.servers:
            close_listener(self.servers.pop())
        for fd in list(self._drained):
            self._drop(fd)
        if self._watch is not None:
            await self._watch.close()
        if self._joined is not None:
            await asyncio.gather(self._joined, return_exceptions=True)
        if self.process.poll() is None:
            fd = os.pidfd_open(self.process.pid)
            gone = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(fd, gone.set)
            try:
                async with asyncio.timeout(5):
                    await gone.wait()
            except TimeoutError:
                self.process.kill()
            finally:
                loop.remove_reader(fd)
                os.close(fd)
        self.process.wait()
        if self._group is not None:
            self._group.close()
        if self.spec.box is not None:
            await asyncio.to_thread(self.spec.box.remove)


async def _told_spawner(facts: int) -> int:
    """Return the spawner's process id on this machine, once bubblewrap has written it to the pipe."""
    told = b""
    loop = asyncio.get_running_loop()
    while not told.rstrip().endswith(b"}"):
        readable = loop.create_future()
        loop.add_reader(facts, _once, readable)
        try:
            await readable
        finally:
            loop.remove_reader(facts)
        data = os.read(facts, 4096)
        if not data:
            raise SandboxError("bubblewrap ended")
        told += data
    return int(json.loads(told)["child-pid"])


def _once(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _settle(future: asyncio.Future[tuple[int, int]], status: int, number: int) -> None:
    if not future.done():
        future.set_result((status, number))


def _nothing(_: bytes) -> None:
    """Drop it."""


def _read_all(fd: int, write: Callable[[bytes], None], times: int = 64) -> bool:
    """Read what is there, up to `times` 64 KiB; True at the end."""
    for _ in range(times):
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        except OSError:
            return True
        if not data:
            return True
        write(data)
    return False
