"""`hud eval --dry-run`: what would run, where, and what it may cost."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import click

from hud.cli.table import columns
from hud.eval.options import agent_name

if TYPE_CHECKING:
    from hud.cli.preparation import Prepared
    from hud.runtime.select import Placements
    from hud.types.task import Task

SHOWN = 50
JOBS_READ = 10
ROLLOUTS_READ = 200
MODEL_FREE = ("oracle", "replay", "human", "noop")


def show(prepared: Prepared) -> int:
    """Print rows and placements; nothing is placed."""
    request = prepared.request
    rows = asyncio.run(_rows(prepared))
    rollouts = prepared.rollouts
    if request.output != "table":
        click.echo(
            json.dumps(
                {
                    "dry_run": True,
                    "source": request.source,
                    "agent": request.agent,
                    "group": request.group,
                    "rollouts": rollouts,
                    "rows": rows,
                    "estimated_cost_usd": _cost(prepared),
                }
            )
        )
        return 0
    cells = [["task", "env", "runtime"], *[[row["slug"], row["env"], row["runtime"]] for row in rows[:SHOWN]]]
    click.echo(columns(cells, width=shutil.get_terminal_size((100, 24)).columns))
    if len(rows) > SHOWN:
        click.echo(f"({len(rows) - SHOWN} more)")
    cost = _cost(prepared)
    shown = "unknown, no such rollout was kept here" if cost is None else f"${cost:.2f}"
    many = "endless" if rollouts is None else rollouts
    click.echo(f"rollouts: {many}  agent: {request.agent}  estimated cost: {shown}")
    return 0


async def _rows(prepared: Prepared) -> list[dict[str, Any]]:
    """Return the rows with their placements; of an endless taskset the first ones."""
    from hud.runtime.select import Placements

    limit = prepared.request.limit
    if prepared.taskset.is_lazy:
        limit = min(limit or SHOWN, SHOWN)
    rows = prepared.taskset.rows(limit)
    placements = Placements(prepared.runtime)
    if isinstance(rows, AsyncIterable):
        return [await _described(row, placements) async for row in rows]
    return [await _described(row, placements) for row in rows]


async def _described(row: Task, placements: Placements) -> dict[str, Any]:
    provider = await placements.provider_for(row)
    return {
        "slug": row.slug,
        "env": row.env,
        "task_id": row.id,
        "args": row.args,
        "runtime": _shown(provider),
    }


def _shown(provider: Any) -> str:
    text = repr(provider)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _cost(prepared: Prepared) -> float | None:
    """Return US dollars: 0 for an agent without a model, else what like rollouts cost before; None if unknown."""
    if prepared.request.agent in MODEL_FREE:
        return 0.0
    past = _past_costs(agent_name(prepared.agent))
    if not past or prepared.rollouts is None:
        return None
    return sum(past) / len(past) * prepared.rollouts


def _past_costs(agent: str) -> list[float]:
    """Return what rollouts of `agent` cost in the latest jobs kept here."""
    from hud.errors import StoreError
    from hud.store.finding import job_files
    from hud.store.reader import JobFile

    found: list[float] = []
    for path in job_files()[:JOBS_READ]:
        try:
            with JobFile(path) as file:
                runs = file.runs(state="finished", limit=ROLLOUTS_READ)
            costs = (run["cost_usd"] for run in runs if run["agent"] == agent)
            found.extend(cost for cost in costs if cost is not None)
        except StoreError:
            continue  # an estimate does without a job that cannot be read
    return found
