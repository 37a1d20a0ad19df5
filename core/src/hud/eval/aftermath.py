"""What remains to be done once a process that ran jobs is gone: remove what it left, write how its jobs ended.

The watchdog process becomes this program. All of it is bounded: 10 s after a death nothing local is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from hud.errors import HudError
from hud.runtime import folders
from hud.runtime.folders import owner_is_dead
from hud.runtime.reaper import reap

KEEPERS_S = 3.0
"""What keepers, which see the death for themselves, may take before what they guard is removed over their heads."""

REAP_S = 6.0
WHOLE_S = 60.0


def main(owner: str, how: str, *files: str) -> None:
    """Clean up after `owner`; `how` is `died`, or `wedged` where the watchdog ended it and the jobs in `files`."""
    # Whatever here gets stuck: nobody watches the watchdog.
    signal.alarm(int(WHOLE_S))
    if not _is_gone(owner):
        sys.exit(1)
    if how == "wedged":
        for file in files:
            with contextlib.suppress(HudError, OSError):
                _write_ends(Path(file))
    asyncio.run(reap(owner=owner, remote=False, within_s=REAP_S))
    _remove_folders(owner)
    # What its rollouts' processes made: they are owners of their own, and have ended with it by now.
    asyncio.run(reap(remote=False, within_s=REAP_S))


def _is_gone(owner: str) -> bool:
    deadline = time.monotonic() + KEEPERS_S
    while not owner_is_dead(owner):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)  # its number is given back moments after its death is seen
    return True


def _remove_folders(owner: str) -> None:
    """Remove what sockets, logs and views of `owner` lie in, once its keepers had time to do so."""
    deadline = time.monotonic() + KEEPERS_S
    while (left := _folders_of(owner)) and time.monotonic() < deadline:
        time.sleep(0.05)  # nothing tells that they have
    for folder in left:
        folders.remove(folder)


def _folders_of(owner: str) -> list[Path]:
    found = []
    for find in (folders.runtime_root, folders.upper_root):
        with contextlib.suppress(OSError, HudError):
            found += [folder for folder, record in folders.owned(find()) if record == owner]
    return found


def _write_ends(file: Path) -> None:
    """Write into a wedged job's file that it was ended, and of what its rollouts in flight had failed."""


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
