"""`hud eval --resume`: the request a job began with, as its file keeps it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import click

from hud.cli.eval_request import EvalRequest
from hud.errors import UsageError
from hud.store.redact import MASK

if TYPE_CHECKING:
    from hud.cli.tally import Tally

OF_THIS_CALL = frozenset({"output", "verbosity", "dry_run", "debug", "fail_under", "resume", "only", "force"})
"""What is asked of one call, and not kept with the job."""

_PLACES = frozenset({"solutions"})
_WORDS = frozenset({"task_ids", "budget", "tags"})


def kept_request(request: EvalRequest) -> dict[str, Any]:
    """Return what is kept of a request with its job: its words, and the folder they hold in."""
    kept = {field.name: getattr(request, field.name) for field in fields(request)}
    # An address may carry a token; HUD_TOKEN gives it again.
    kept["runtime"] = _without_token(request.runtime)
    return {"folder": str(Path.cwd())} | {
        name: str(value) if name in _PLACES and value is not None else value
        for name, value in kept.items()
        if name not in OF_THIS_CALL
    }


def resumed_request(
    reference: str, given: Mapping[str, Any], *, only: Literal["errors"] | None, force: bool
) -> EvalRequest:
    """Return the request of a job with what is `given` anew, and go to the folder it was made in.

    Raises:
        StoreError: no such job, or several.
        UsageError: the job was not begun by `hud eval`, its folder is gone, or a secret of its must be given again.
    """
    from hud.store.finding import find_job
    from hud.store.reader import JobFile

    path = find_job(reference).resolve()
    with JobFile(path) as file:
        options = file.job().get("options")
        kept = (options or {}).get("request")
    if options is None:
        raise UsageError(
            f"job {path.stem} was ended before it had begun: there is nothing to go on with; start it again"
        )
    if not kept:
        raise UsageError(
            f"job {path.stem} was not begun by `hud eval`; go on with it in Python: "
            f"Taskset.run(agent, job=Job.load({path.stem[:8]!r}))"
        )
    enter_folder(Path(kept["folder"]), path.stem)
    known = {field.name for field in fields(EvalRequest)} - OF_THIS_CALL
    words = {name: _typed(name, value) for name, value in kept.items() if name in known}
    words["config"] = {**words.get("config", {}), **given.get("config", {})}
    for name, value in words["config"].items():
        if isinstance(value, str) and MASK in value:
            raise UsageError(
                f"the agent's {name} was a secret and is not kept with job {path.stem}; add --config {name}=VALUE"
            )
    return EvalRequest(
        **{**words, **{k: v for k, v in given.items() if k != "config"}}, resume=path, only=only, force=force
    )


def _without_token(runtime: str | None) -> str | None:
    if runtime is None or "?" not in runtime:
        return runtime
    parts = urlsplit(runtime)
    left = [(key, value) for key, value in parse_qsl(parts.query) if key != "token"]
    return parts._replace(query=urlencode(left)).geturl()


def enter_folder(folder: Path, job_id: str) -> None:
    """Go to the folder a job was begun in, where its source is; says so on stderr.

    Raises:
        UsageError: it cannot be entered.
    """
    if folder == Path.cwd():
        return
    try:
        os.chdir(folder)
    except OSError as exc:
        raise UsageError(
            f"job {job_id} was begun in {folder}, where its source is, and which cannot be entered ({exc.strerror})"
        ) from exc
    click.echo(f"in {folder}, where the job was begun", err=True)


def _typed(name: str, value: Any) -> Any:
    if name in _PLACES and value is not None:
        return Path(value)
    return tuple(value) if name in _WORDS and value is not None else value


def count_done(tally: Tally, path: Path, only: Literal["errors"] | None) -> None:
    """Let a tally begin with what a job's file says is done."""
    from hud.eval.resumption import Resumption
    from hud.store.reader import JobFile

    done = Resumption.read(path, only)
    with JobFile(path) as file:
        sums = file.summary()
    # What is run again has no reward, so what was rewarded is among those done.
    tally.go_on(
        done=len(done.done), graded=sums["graded"], total=(sums["mean_reward"] or 0.0) * sums["graded"]
    )
    if only is not None:
        tally.expected = len(done.done) + len(done.again)
