"""One job on one page: how it stands, its table per task, its errors, and what it was asked to do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hud.cli.jobline import JobLine, age, money, read_line
from hud.cli.table import closing_table, duration, number
from hud.cli.terminal import Style, one_line, safe

MOST_ERRORS = 10
MOST_RUNNING = 10
LEFT_OUT = frozenset({"request", "tags", "seed", "deadlines", "limits"})
"""Options that have a line of their own, or repeat what others say."""


def job_page(path: Path, *, colours: bool, with_runs: bool) -> str:
    """Return the page of a job's file.

    Raises:
        StoreError: it cannot be read.
    """
    from hud.eval.job import Job
    from hud.store.reader import JobFile

    style = Style(colours)
    line = read_line(path)
    with JobFile(path) as file:
        record = file.job()
        parts = [*_head(line, record, style)]
        job = Job.load(path)
        if job.summary().runs:
            seconds = job.elapsed_seconds if line.ended_at or line.is_running else None
            parts += ["", safe(closing_table(job.summary(), group=job.group, seconds=seconds))]
        if errors := errors_of(file):
            parts += ["", style("errors", "bold"), *_error_lines(errors, style)]
        if line.is_running and (running := file.runs(state="running", limit=MOST_RUNNING)):
            parts += ["", style("running", "bold")]
            parts += [
                f"  {run['run_id'][:8]}  {style(run['slug'])}  {age(run['started_at'])}" for run in running
            ]
        if with_runs:
            parts += ["", style("rollouts", "bold"), *_run_lines(file, style)]
        if remarks := [note["record"].get("said") for note in file.notes("sink")]:
            parts += ["", *(style(remark, "yellow") for remark in remarks)]
        parts += ["", style("asked for", "bold"), *_asked(record, style)]
    return "\n".join(parts)


def page_dump(path: Path, *, with_runs: bool) -> dict[str, Any]:
    """Return the page as JSON's types."""
    from hud.eval.job import Job
    from hud.store.reader import JobFile

    with JobFile(path) as file:
        record = file.job()
        dump: dict[str, Any] = {
            **read_line(path).dump(),
            "summary": Job.load(path).summary().model_dump(),
            "errors": errors_of(file),
            "job": record,
            "notes": file.notes(),
        }
        if with_runs:
            dump["runs"] = file.runs()
    return dump


def errors_of(file: Any) -> list[dict[str, Any]]:
    """Return the kinds of errors, the most frequent first: `{kind, error, count, runs}` with up to five run ids."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in file.runs(state="finished"):
        if run["reward"] is not None:
            continue
        key = (run["error_class"] or "", one_line(run["error"] or run["status"] or "no reward", 300))
        entry = found.setdefault(key, {"kind": key[0], "error": key[1], "count": 0, "runs": []})
        entry["count"] += 1
        if len(entry["runs"]) < 5:
            entry["runs"].append(run["run_id"])
    return sorted(found.values(), key=lambda entry: -entry["count"])


def _head(line: JobLine, record: Mapping[str, Any], style: Style) -> Iterator[str]:
    colour = {"running": "cyan", "finished": "green"}.get(line.state, "yellow")
    yield f"{style('job', 'bold')} {line.id}  {style(line.name)}  {style(line.state, colour)}"
    if line.why:
        yield f"  {style(line.why, 'yellow')}"
    ended = line.ended_at or (time.time() if line.is_running else None)
    took = f", took {duration(ended - line.started_at)}" if ended is not None and line.started_at else ""
    total = "" if line.expected is None else f" of {line.expected}"
    yield (
        f"  {line.runs}{total} rollouts, {line.errors} errors, mean {number(line.mean)}, "
        f"{line.tokens:,} tokens, {money(line.cost_usd)}; begun {age(line.started_at)} ago{took}"
    )
    budget = record.get("budget")
    if isinstance(budget, Mapping) and budget:
        yield f"  budget: {style(_budget_line(budget))}"
    if line.state in ("interrupted", "ended early") and line.by_command:
        yield f"  go on with it: hud eval --resume {line.id[:8]}"


def _budget_line(budget: Mapping[str, Any]) -> str:
    """Return what was allowed, and what of that is spent."""
    from hud.eval.budget import shown

    limit, spent = budget.get("limit") or {}, budget.get("spent") or {}
    return ", ".join(
        f"{shown(name, spent.get(name) or 0)} of {shown(name, most)}" for name, most in limit.items() if most
    )


def _error_lines(errors: list[dict[str, Any]], style: Style) -> Iterator[str]:
    for entry in errors[:MOST_ERRORS]:
        kind = f"{entry['kind']}: " if entry["kind"] else ""
        yield f"  {entry['count']} x {style(kind + one_line(entry['error'], 120), 'red')}  [{entry['runs'][0][:8]}]"
    if len(errors) > MOST_ERRORS:
        yield f"  and {len(errors) - MOST_ERRORS} more kinds; --json has all"
    yield f"  see one: hud trace {errors[0]['runs'][0][:8]}"


def _run_lines(file: Any, style: Style) -> Iterator[str]:
    for run in file.runs():
        if run["state"] == "running":
            shown = style("running", "cyan")
        elif run["reward"] is None:
            shown = style(f"error: {one_line(run['error'] or 'no reward', 80)}", "red")
        else:
            shown = number(run["reward"])
        seconds = "" if run["seconds"] is None else f"  {duration(run['seconds'])}"
        yield f"  {run['run_id'][:8]}  {style(run['slug'])}  {shown}{seconds}  {run['steps']} steps"


def _asked(record: Mapping[str, Any], style: Style) -> Iterator[str]:
    options, inputs = record.get("options") or {}, record.get("inputs") or {}
    agent = inputs.get("agent_config") or {}
    source = inputs.get("source") or {}
    rows = inputs.get("rows") or {}
    lines = {
        "agent": " ".join(
            [str(record.get("agent") or "-"), *(f"{key}={_short(value)}" for key, value in agent.items())]
        ),
        "source": f"{record.get('source') or '-'}  {_digest(source.get('digest'))}, "
        f"{len(source.get('files') or ())} files",
        "rows": f"{rows.get('count', '-')} x {record.get('group') or 1}  {_digest(rows.get('digest'))}",
        "seed": options.get("seed"),
        "tags": ", ".join(map(str, options.get("tags") or ())),
        "limits": _pairs(options.get("limits")),
        "deadlines": _pairs(options.get("deadlines")),
        "options": _pairs({key: value for key, value in options.items() if key not in LEFT_OUT}),
        "versions": ", ".join(
            f"{dist} {version}" for dist, version in (inputs.get("versions") or {}).items()
        ),
    }
    for name, value in lines.items():
        if value not in (None, ""):
            yield f"  {style(f'{name:<9}', 'dim')} {style(value)}"


def _pairs(table: object) -> str:
    if not isinstance(table, Mapping):
        return ""
    return ", ".join(f"{key}={_short(value)}" for key, value in table.items() if value is not None)


def _digest(text: object) -> str:
    return str(text)[:19] if text else "-"


def _short(value: object) -> str:
    return one_line(f"{value:g}" if isinstance(value, float) else value, 100)
