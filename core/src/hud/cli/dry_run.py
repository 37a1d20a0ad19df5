"""`hud eval --dry-run`: what would run, where, and what it may cost."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import click

from hud.cli.table import columns

if TYPE_CHECKING:
    from hud.cli.preparation import Prepared
    from hud.runtime.select import Placements
    from hud.types.task import Task

SHOWN = 50


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
    shown = "unknown" if cost is None else f"${cost:.2f}"
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
    """Return US dollars, 0 for an agent without a model, None where nothing is known."""
    estimate = getattr(prepared.agent, "estimated_cost_usd", None)
    if callable(estimate) and prepared.rollouts is not None:
        return float(estimate(prepared.rollouts))
    return 0.0 if prepared.request.agent in ("oracle", "replay", "human", "noop") else None
