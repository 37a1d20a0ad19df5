"""`hud eval --detach`: the job in a process of its own, which outlives the terminal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hud.cli import failure
from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.cli.eval_request import EvalRequest
    from hud.eval.job import Job

VARIABLE = "HUD_DETACHED_FD"
"""Names the descriptor on which the detached process tells which job it has begun."""
FLAG = "--detach"
OUTPUT = ".out"
"""Suffix of the file beside the job's that has what the command printed."""
END_WITHIN_S = 20.0


def detach(request: EvalRequest, args: Sequence[str]) -> int:
    """Begin the command `args` again without `--detach`, in a session of its own; print the job's id once it has begun.

    A command that ends before that ends this one in the same way, with what it printed. Ctrl-C meanwhile ends it;
    afterwards `hud jobs stop` does.

    Raises:
        UsageError: the request needs this terminal.
    """
    for wanted, why in (
        (request.debug, "--debug"),
        (request.dry_run, "--dry-run"),
        (request.agent == "human", "human"),
    ):
        if wanted:
            raise UsageError(f"--detach leaves the terminal, which {why} needs")
    from hud.store.folder import jobs_folder

    output = jobs_folder().absolute() / f"detached-{os.getpid()}-{time.time_ns():x}{OUTPUT}"
    reading, writing = os.pipe()
    try:
        with output.open("xb") as printed, os.fdopen(reading, "rb") as told:
            child = _spawned([arg for arg in args if arg != FLAG], printed, writing)
            writing = -1
            try:
                line = told.readline()
            except KeyboardInterrupt:
                _end(child)
                raise
    finally:
        if writing >= 0:
            os.close(writing)
    if not line:
        return _failed(child, output)
    begun: dict[str, Any] = json.loads(line)
    path = Path(begun["path"])
    kept = path.with_suffix(OUTPUT)
    # It goes on there: a file that is open does not mind its name.
    try:
        output.replace(kept)
    except OSError:  # another disk: the job belongs here, and is written elsewhere
        kept = output.replace(output.with_name(kept.name))
    child.returncode = (
        0  # from now on it is nobody's child; without this, its object warns that it still runs
    )
    if request.output == "table":
        click.echo(begun["job_id"])
        click.echo(
            f"follow it: hud jobs watch {begun['job_id'][:8]}   end it: hud jobs stop {begun['job_id'][:8]}",
            err=True,
        )
    else:
        click.echo(json.dumps({**begun, "pid": child.pid, "output": str(kept)}))
    return 0


def _spawned(args: Sequence[str], printed: Any, writing: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "hud.cli.main", *args],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            env={**os.environ, VARIABLE: str(writing)},
            pass_fds=[writing],
            start_new_session=True,
        )
    finally:
        os.close(writing)


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(END_WITHIN_S)


def _failed(child: subprocess.Popen[bytes], output: Path) -> int:
    """Tell how a command ended that never began a job."""
    code = child.wait()
    text = output.read_text(encoding="utf-8", errors="replace")
    output.unlink(missing_ok=True)
    click.echo(text, nl=False, err=code != 0 and not text.lstrip().startswith("{"))
    return code if code >= 0 else failure.FAILED


class Announcement:
    """The detached process's side: tells once which job has begun. Where nobody waits for that, it does nothing."""

    def __init__(self) -> None:
        text = os.environ.pop(VARIABLE, "")
        self._handle = int(text) if text.isdecimal() else -1
        if self._handle >= 0:
            os.set_inheritable(self._handle, False)

    @property
    def is_due(self) -> bool:
        """Whether someone still waits."""
        return self._handle >= 0

    def tell(self, job: Job) -> None:
        """Tell of `job` if its file is there, once."""
        if self._handle < 0 or job.path is None:
            return
        line = json.dumps({"job_id": job.id, "path": str(job.path.absolute())}) + "\n"
        with contextlib.suppress(OSError):
            os.write(self._handle, line.encode())
        self.close()

    def close(self) -> None:
        """Let go of the descriptor: who waits sees the end."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
