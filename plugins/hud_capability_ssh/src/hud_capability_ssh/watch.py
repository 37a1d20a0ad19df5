"""Hold what the kernel does not: memory without a control group, and the disk a workspace takes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hud.errors import SandboxError
from hud_capability_ssh.tree import walk

if TYPE_CHECKING:
    from hud_capability_ssh.sandbox import Sandbox

EVERY_S = 0.2
MOST_FILES = 1_000_000


class Watch:
    """Looks every 200 ms while anything runs inside; a sandbox at rest costs nothing.

    Memory: the largest processes are killed until the rest fits. Disk: a fall of the file system's free space that
    could have come from here has the folder measured, and growing beyond the limit ends every process.
    """

    def __init__(self, sandbox: Sandbox, *, holds_memory: bool, tell: Callable[[str], None]) -> None:
        self._sandbox = sandbox
        self._holds_memory = holds_memory
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._root = sandbox.spec.root
        self._used = 0
        self._files = 0
        self._free = self._free_now()
        self._not_before = 0.0

    def wake(self) -> None:
        """Begin to look, unless that is going on."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())

    async def close(self) -> None:
        """Stop looking. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> None:
        most = self._sandbox.spec.limits.memory // 1024 if self._holds_memory else 0
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                answer, _ = await self._sandbox.link.ask("relieve", most)
                if answer[3]:
                    self._sandbox.killed_for_memory += int(answer[3])
                if int(answer[2]) > self._sandbox.spec.limits.memory // 1024:
                    # No process holds it, so none can be ended for it: the sandbox goes, and with it all of that.
                    self._tell("hud: files in memory passed the memory limit: the sandbox was started anew\n")
                    self._sandbox.link.close()
                    return
                await self._look_at_disk()
            except (SandboxError, OSError):
                return
            if not answer[1]:
                return

    async def _look_at_disk(self) -> None:
        limit = self._sandbox.spec.limits.disk
        free, inodes = self._free_now()
        taken = self._free[0] - free
        over = self._used > limit or self._files > MOST_FILES
        near = (
            taken > max(limit - self._used, 0) // 2
            or self._free[1] - inodes > (MOST_FILES - self._files) // 2
        )
        if not (over or near) or time.monotonic() < self._not_before:
            return
        began = time.monotonic()
        before = self._used, self._files
        self._free = (free, inodes)
        self._used, self._files = await asyncio.to_thread(measured, self._root)
        self._not_before = time.monotonic() + 4 * (time.monotonic() - began)
        # Who is over the limit and does not grow may go on: it may be the one that cleans up.
        grows = self._used > max(before[0], limit) or self._files > max(before[1], MOST_FILES)
        if over and grows:
            what = f"{MOST_FILES} files" if self._files > MOST_FILES else f"{limit} bytes"
            self._tell(f"hud: the workspace passed its disk limit of {what}: every process was ended\n")
            await self._sandbox.kill_everything()
            # What they wrote until then must not count as growth of what runs next.
            self._free = self._free_now()
            self._used, self._files = await asyncio.to_thread(measured, self._root)

    def _free_now(self) -> tuple[int, int]:
        disk = os.statvfs(self._root)
        return disk.f_bfree * disk.f_frsize, disk.f_ffree


def measured(root: Path) -> tuple[int, int]:
    """Return the bytes and the number of files below a folder; links are not followed."""
    total = count = 0
    seen: set[int] = set()
    deep: list[str] = []
    for _, _, entry in walk(root, too_deep=deep.append):
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        count += 1
        if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
            if found.st_ino in seen:
                continue
            seen.add(found.st_ino)
        total += found.st_blocks * 512
    return (max(total, _measured_by_du(root)) if deep else total), count


def _measured_by_du(root: Path) -> int:
    """Return the bytes below a folder of any depth."""
    words = ["du", "-s", "-x", "-B1", "--", str(root)]
    said = subprocess.run(words, capture_output=True, check=False, stdin=subprocess.DEVNULL).stdout
    return int(said.split()[0]) if said else 0
