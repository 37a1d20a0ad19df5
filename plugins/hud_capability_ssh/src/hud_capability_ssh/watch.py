"""Hold what the kernel does not: memory without a control group, and the disk a workspace takes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hud.errors import SandboxError
from hud_capability_ssh.tree import walk

if TYPE_CHECKING:
    from hud_capability_ssh.sandbox import Sandbox

EVERY_S = 0.2
MOST_FILES = 1_000_000
JUDGE_S = 2.0
"""How long the end of a command waits for the measure of a folder."""


@dataclass(slots=True)
class _Place:
    """A folder on a disk, what it may take, and what is known of it."""

    folder: Path
    limit: int
    words: str
    used: int = 0
    files: int = 0
    not_before: float = 0.0
    free: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.free = self.free_now()

    def free_now(self) -> tuple[int, int]:
        """Return bytes and names that its file system has left."""
        disk = os.statvfs(self.folder)
        return disk.f_bfree * disk.f_frsize, disk.f_ffree

    def is_over(self) -> bool:
        return self.used > self.limit or self.files > MOST_FILES

    def may_be_over(self, free: tuple[int, int]) -> bool:
        """Whether it is, or so much of the file system was taken since the last measure that it could be."""
        return (
            self.is_over()
            or self.free[0] - free[0] > max(self.limit - self.used, 0) // 2
            or self.free[1] - free[1] > (MOST_FILES - self.files) // 2
        )


class Watch:
    """Looks every 200 ms while anything runs inside; a sandbox at rest costs nothing.

    Memory: the largest processes are killed until the rest fits. Disk: a fall of the file system's free space that
    could have come from here has the folder measured, and growing beyond the limit ends every process. It is looked
    at when a command ends, too.
    """

    def __init__(self, sandbox: Sandbox, *, holds_memory: bool, tell: Callable[[str], None]) -> None:
        self._sandbox = sandbox
        self._holds_memory = holds_memory
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._judging: asyncio.Task[None] | None = None
        self._measuring = asyncio.Lock()
        spec = sandbox.spec
        self._places = [_Place(spec.root, spec.limits.disk, "the workspace passed its disk limit")]
        if spec.box is not None:
            size = 2 * spec.limits.tmp  # /tmp, and home as much
            self._places.append(_Place(spec.box.path, size, "$TMPDIR and home passed twice the tmp limit"))

    def wake(self) -> None:
        """Begin to look, unless that is going on."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())

    async def close(self) -> None:
        """Stop looking. Safe to call twice."""
        tasks = [task for task in (self._task, self._judging) if task is not None]
        self._task = self._judging = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
                await self._look_at_disks()
            except (SandboxError, OSError):
                return
            if not answer[1]:
                return

    async def judge(self) -> None:
        """Look at the disk now, for a command that has ended: the next is not to be ended for what this one wrote."""
        try:
            if not any(place.may_be_over(place.free_now()) for place in self._places):
                return
        except OSError:
            return
        if self._judging is None or self._judging.done():
            self._judging = asyncio.get_running_loop().create_task(self._judge())
        await asyncio.wait({self._judging}, timeout=JUDGE_S)

    async def _judge(self) -> None:
        with suppress(SandboxError, OSError):  # it has ended with all that it ran
            await self._look_at_disks()

    async def _look_at_disks(self) -> None:
        async with self._measuring:
            for place in self._places:
                await self._look_at_disk(place)

    async def _look_at_disk(self, place: _Place) -> None:
        free = place.free_now()
        if not place.may_be_over(free) or time.monotonic() < place.not_before:
            return
        began = time.monotonic()
        before, taken = (place.used, place.files), place.free[0] - free[0]
        place.free = free
        await self._measure(place, before[0] + taken)
        place.not_before = time.monotonic() + 4 * (time.monotonic() - began)
        # Who is over the limit and does not grow may go on: it may be the one that cleans up.
        grows = place.used > max(before[0], place.limit) or place.files > max(before[1], MOST_FILES)
        if place.is_over() and grows:
            what = f"{MOST_FILES} files" if place.files > MOST_FILES else f"{place.limit} bytes"
            self._tell(f"hud: {place.words} of {what}: every process was ended\n")
            await self._sandbox.kill_everything()
            # What they wrote until then must not count as growth of what runs next.
            place.free = place.free_now()
            place.used, place.files = await asyncio.to_thread(measured, place.folder)

    async def _measure(self, place: _Place, at_most: int) -> None:
        """Measure what has a name, and what only open files hold; a process that hides them has all the rest."""
        place.used, place.files = await asyncio.to_thread(measured, place.folder)
        first = self._places[0]
        if place is first or place.folder.stat().st_dev != first.folder.stat().st_dev:
            (nameless, hiding), _ = await self._sandbox.link.ask("nameless")
            place.used = max(place.used + int(nameless), at_most if hiding else 0)


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
