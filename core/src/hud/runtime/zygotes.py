"""The orchestrator's side of zygotes: start one, ask it for children, replace it when its source changed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from hud.errors import RuntimeStartError
from hud.runtime import folders
from hud.runtime.admission import original_descriptor_limit
from hud.runtime.gate import with_remedy
from hud.runtime.ledger import ledger, process_name
from hud.runtime.process import LocalProcess, ZygoteGoneError, how_it_ended, raise_failure, with_output
from hud.runtime.project import Lower, Source

_BOOT = (
    "import sys; sys.path[:] = sys.argv[3].split('\\n'); "
    "from hud.runtime.keeper import main; main(int(sys.argv[1]), int(sys.argv[2]))"
)
IDLE_S = 60.0
"""A zygote ends this long after its last child."""
# Far above what the orchestrator has open at start, and below the smallest common limit of 256.
_CONTROL, _LIFELINE = 198, 199


@dataclass(frozen=True)
class ZygoteKey:
    """What two placements must share to be forked from one zygote."""

    source: Source
    env: str | None
    environ: tuple[tuple[str, str], ...] = field(repr=False)
    preimport: bool = True


class ZygoteHandle:
    """A zygote of this process. It may be used from any loop once it is ready."""

    def __init__(self, key: ZygoteKey) -> None:
        self.key = key
        self.project: Path = key.source.project
        self.lower: Lower = Lower(key.source.folder)
        self.users: int = 0
        """How many children are held."""
        self.proved = False
        """Whether a child of it has served."""
        self.folder: Path = folders.make_owned(folders.runtime_root())
        self.uppers: list[Path] = _upper_folders(self.folder)
        self.log = self.folder / "zygote.log"
        self.modules: list[tuple[str, int, int]] = []
        self.roots: list[str] = []
        self.spawn_reason: str | None = None
        self._retired = False
        self.pid: int = 0
        self._count = itertools.count(1)
        self._starting: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lifeline, lifeline = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with control, lifeline:
            self.pid = self._spawn(control, lifeline)
        # Found by who cleans up after us, should somebody have stopped the keeper, which cleans up by itself.
        self._entry = ledger().intend("process", process_name(self.pid), detail={"group": True})
        self._control.setblocking(False)
        self._lifeline.setblocking(False)
        _handles.add(self)

    def _spawn(self, control: socket.socket, lifeline: socket.socket) -> int:
        setup = {
            "source": self.key.source.text,
            "env": self.key.env,
            "folder": str(self.key.source.folder),
            "preimport": self.key.preimport,
            "idle_s": IDLE_S,
            "descriptors": original_descriptor_limit(),
            "sys_path": sys.path,
            "folders": [str(self.folder), *map(str, self.uppers)],
        }
        self._lifeline.send(json.dumps(setup).encode())
        argv = [sys.executable, "-P", "-c", _BOOT, str(_CONTROL), str(_LIFELINE), "\n".join(sys.path)]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, control.fileno(), _CONTROL),
            (os.POSIX_SPAWN_DUP2, lifeline.fileno(), _LIFELINE),
        ]
        try:
            return os.posix_spawn(
                sys.executable, argv, dict(self.key.environ), file_actions=actions, setsid=True
            )
        except OSError as error:
            self.close()
            raise RuntimeStartError(f"cannot start {sys.executable}: {error.strerror}") from error

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until the environment is imported.

        Raises:
            HudError: the module failed; of the kind its failure has.
            RuntimeStartError: the process ended, or `timeout_s` passed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                report = json.loads(await _receive(self._control) or b"{}")
                ended = None if report else json.loads(await _receive(self._lifeline) or b"{}")
        except TimeoutError:
            text = f"{self.key.source.place} did not finish importing within {timeout_s:g} s"
            raise RuntimeStartError(with_output(text, self.log)) from None
        if ended is not None:
            how = how_it_ended(ended.get("zygote_ended"))
            raise RuntimeStartError(
                with_output(f"importing {self.key.source.place}: the process {how}", self.log)
            )
        if "failed" in report:
            raise_failure(report["failed"], self.log)
        self.modules = [(path, stamp, size) for path, stamp, size in report.get("modules", ())]
        self.spawn_reason = report.get("spawn")
        if (ready := report.get("ready")) is not None:
            self.modules = [(path, stamp, size) for path, stamp, size in ready["modules"]]
            self.roots = ready["roots"]

    def changed_modules(self) -> list[str]:
        """Return the imported files that are no longer what they were."""
        return [path for path, *stamp in self.modules if _stamp(path) != stamp]

    async def start_child(self, options: Mapping[str, Any], log: Path | None) -> LocalProcess:
        """Ask for a child; it is not ready yet. The caller closes what is returned.

        Raises:
            ZygoteGoneError: the zygote ended before it could fork.
        """
        number = next(self._count)
        own_log = self.folder / f"{number:x}.log"
        request = dict(options, log=str(log or own_log))
        socket_path = self.folder / f"{number:x}"
        request["socket"] = str(socket_path) if request.pop("transport") == "unix" else ""
        request["view"]["uppers"] = [str(upper / f"{number:x}") for upper in self.uppers]
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise RuntimeStartError(
                with_remedy(f"cannot start a child: {error.strerror}", error.errno)
            ) from error
        process = LocalProcess(ours, log or own_log, self.key.source.place.name)
        process.written = [Path(path) for path in request["view"]["uppers"]]
        process.own_files = [socket_path, own_log]
        try:
            with theirs:
                await self._send(json.dumps(request).encode(), theirs)
        except BaseException:
            process.close()
            raise
        return process

    def starting(self) -> asyncio.Semaphore:
        """Return what bounds how many children start at once, so that a burst starts as fast as a queue."""
        loop = asyncio.get_running_loop()
        return self._starting.setdefault(loop, asyncio.Semaphore(4 * (os.cpu_count() or 1)))

    async def _send(self, request: bytes, channel: socket.socket) -> None:
        while True:
            try:
                socket.send_fds(self._control, [request], [channel.fileno()])
                return
            except BlockingIOError:
                await _writable(self._control)
            except OSError as error:
                raise ZygoteGoneError(
                    f"the zygote of {self.key.source.place} has ended: {error.strerror}"
                ) from error

    def release(self) -> None:
        """Give back what `lease` gave."""
        self.users -= 1
        if self._retired and not self.users:
            self.close()

    def retire(self) -> None:
        """End once nobody uses it."""
        self._retired = True
        if not self.users:
            self.close()

    def let_go(self) -> None:
        """Close the descriptors alone."""
        self._control.close()
        self._lifeline.close()

    def close(self) -> None:
        """Let the keeper end everything and remove the folders; returns at once."""
        self.let_go()
        if self.pid and self.pid not in _keepers:
            _keepers[self.pid] = [self.folder, *self.uppers]
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)  # one that was stopped goes on to its end
            self._entry.removed()
        reap()


_handles: WeakSet[ZygoteHandle] = WeakSet()


def _let_go() -> None:
    """In a process forked from this one: hold no lifeline, or the keepers would wait for that process too."""
    for handle in list(_handles):
        handle.let_go()
    _keepers.clear()


os.register_at_fork(after_in_child=_let_go)

_keepers: dict[int, list[Path]] = {}
"""Keepers of closed zygotes, with the folders they were to remove."""


def reap() -> None:
    """Collect keepers that have ended; they end moments after their zygote was closed.

    The folders of one that was killed are removed here.
    """
    for pid, owned in list(_keepers.items()):
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended, status = pid, 1
        if ended:
            del _keepers[pid]
            if status:
                for folder in owned:
                    folders.remove(folder)


def _upper_folders(folder: Path) -> list[Path]:
    """Return where upper layers may lie, best first: on disk, then beside the sockets, which may be memory."""
    found = [folder / "u"]
    found[0].mkdir(mode=0o700)
    with contextlib.suppress(OSError, RuntimeStartError):
        found.insert(0, folders.make_owned(folders.upper_root()))
    return found


def _stamp(path: str) -> list[int]:
    try:
        info = os.stat(path)  # noqa: PTH116 - on the way of every placement
    except OSError:
        return []
    return [info.st_mtime_ns, info.st_size]


async def _receive(sock: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError):
        return await asyncio.get_running_loop().sock_recv(sock, 1 << 20)
    return b""


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock.fileno())
