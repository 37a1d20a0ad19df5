"""What a shell may complete with; cheap, and silent where something is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

MOST = 500


def agents(incomplete: str) -> list[str]:
    """Return the agents whose name begins so; declarations are read, no agent is imported."""
    from hud.errors import HudError
    from hud.plugins import current_host

    try:
        names = [kind.name for kind in current_host().registry.agents()]
    except HudError:
        names = []
    return [name for name in names if name.startswith(incomplete)]


def runtimes(incomplete: str) -> list[str]:
    """Return the runtimes whose name begins so."""
    from hud.errors import HudError
    from hud.plugins import current_host

    try:
        names = [kind.name for kind in current_host().registry.runtimes()]
    except HudError:
        names = []
    return [name for name in names if name.startswith(incomplete)]


def slugs(source: str, incomplete: str) -> list[str]:
    """Return slugs that begin so: those of a data file, or those the latest job of this folder ran.

    A Python source is not imported to complete a word.
    """
    path = Path(source)
    try:
        if path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
            found = [row.get("slug") for row in (rows if isinstance(rows, list) else rows.get("tasks", []))]
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                found = [json.loads(line).get("slug") for line, _ in zip(lines, range(MOST), strict=False)]
        else:
            found = _of_latest_job()
    except (OSError, ValueError, AttributeError):
        return []
    return sorted({slug for slug in found if isinstance(slug, str) and slug.startswith(incomplete)})[:MOST]


def typed_source() -> str:
    """Return SOURCE of the line that is completed.

    click stops at an option that still waits for its value and then knows no arguments.
    """
    words = os.environ.get("COMP_WORDS", "").split()
    return next((word for word in words[2:] if not word.startswith("-")), ".")


def _of_latest_job() -> list[str]:
    from hud.errors import StoreError
    from hud.store.finding import job_files
    from hud.store.reader import JobFile

    try:
        for path in job_files([Path(".hud/jobs")])[:1]:
            with JobFile(path) as file:
                return [task["slug"] for task in file.tasks()[:MOST]]
    except StoreError:
        pass  # a completion does without a job that cannot be read
    return []


def jobs(incomplete: str, *, running: bool = False) -> list[str]:
    """Return the ids of jobs kept here that begin so, newest first; no file is opened."""
    from hud.store.finding import job_files
    from hud.store.lock import is_locked

    found = (path for path in job_files() if path.stem.startswith(incomplete))
    return [path.stem for path in found if not running or is_locked(path)][:MOST]


def runs(incomplete: str) -> list[str]:
    """Return the ids of rollouts that begin so, of the newest jobs; `JOB/` gives those of one job."""
    from hud.errors import StoreError
    from hud.store.finding import job_files
    from hud.store.reader import JobFile

    job, slash, start = incomplete.rpartition("/")
    found: list[str] = []
    for path in job_files()[:20]:
        if not path.stem.startswith(job):
            continue
        try:
            with JobFile(path) as file:
                ids = [row["run_id"] for row in file.runs(limit=MOST)]
        except StoreError:
            continue  # a completion does without a job that cannot be read
        found += [f"{job}{slash}{run}" for run in ids if run.startswith(start)]
    return found[:MOST]
