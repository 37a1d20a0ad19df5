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
from typing import TYPE_CHECKING, Any

from hud.errors import HudError
from hud.eval.failures import Failure
from hud.runtime import folders
from hud.runtime.folders import owner_is_dead
from hud.runtime.reaper import reap

if TYPE_CHECKING:
    from hud.store.reader import JobFile

WEDGED = "every deadline had passed and its process did not answer, so its watchdog ended it"

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
                write_ends(Path(file))
    asyncio.run(reap(owner=owner, remote=False, within_s=REAP_S))
    _remove_folders(owner)
    for file in files:
        clean_logs(Path(file))
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


def write_ends(file: Path) -> None:
    """Write into a wedged job's file how it ended: what was past its bound has failed, the rest was cancelled.

    Raises:
        HudError: the file cannot be read or written; a job that goes on finds out by itself what was in flight.
    """
    from hud.store.reader import JobFile
    from hud.store.writer import JobWriter

    with JobFile(file) as job:
        bound = (job.job().get("options") or {}).get("hard_bound_s")
        running = [_ended(job, light["run_id"], bound) for light in job.runs(state="running")]
    writer = JobWriter(file.parent, file.stem)
    try:
        for record in running:
            writer.abandoned(record)
        end = {"job_id": file.stem, "ended_at": time.time(), "cancelled": True, "ended_because": WEDGED}
        writer.job(end)
    finally:
        asyncio.run(writer.close())


def clean_logs(file: Path) -> None:
    """Take secrets out of what the environments of a job printed that did not come to its end."""
    from hud.store.redact import clean_file, project_redactor

    with contextlib.suppress(HudError, OSError):
        mask = project_redactor(file.absolute().parents[2])  # the folder with .hud/jobs
        for log in file.with_suffix(".logs").glob("*.log"):
            with contextlib.suppress(OSError):
                clean_file(log, mask)


def _ended(job: JobFile, run_id: str, bound: float | None) -> dict[str, Any]:
    record = job.record(run_id)
    record.pop("state", None)
    now = time.time()
    overdue = bound is not None and now - record.get("started_at", now) >= bound
    failure = Failure(
        "infrastructure" if overdue else "cancelled",
        "",
        "PhaseTimeoutError" if overdue else "CancelledError",
        f"not over {bound:g} s after its start: {WEDGED}" if overdue else f"cut off: {WEDGED}",
        "runtime",
    )
    return {
        **record,
        "attempts": job.attempts(run_id),
        "reward": None,
        "status": "error" if overdue else "cancelled",
        "failure": failure.model_dump(exclude_none=True),
        "ended_at": now,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)
