"""`hud judge`: a judge compared with people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from hud_grader_llm.calibration import Agreement, Calibration


@click.group()
def judge() -> None:
    """Compare a judge with human labels."""


@judge.command()
@click.argument("rubric", type=click.Path(path_type=Path))
@click.argument("labelled", type=click.Path(path_type=Path))
@click.option("--model", "-m", multiple=True, help="The judge's model; again for models to fall back on.")
@click.option("--votes", type=click.IntRange(min=1), help="Ask each question so often.")
@click.option("--base-url", help="A server of your own that speaks Chat Completions.")
@click.option(
    "--at-once", default=8, show_default=True, type=click.IntRange(min=1), help="Answers judged at a time."
)
@click.option("--no-cache", is_flag=True, help="Ask anew what was asked before.")
@click.option("--min-kappa", type=float, help="Exit with status 1 where the kappa over all is lower.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def calibrate(
    rubric: Path,
    labelled: Path,
    model: Sequence[str],
    votes: int | None,
    base_url: str | None,
    at_once: int,
    no_cache: bool,
    min_kappa: float | None,
    as_json: bool,
) -> None:
    """Print how well a judge with RUBRIC (YAML) agrees with people, on LABELLED answers (JSONL).

    Each line of LABELLED has `answer`, `labels` (criterion's name: true or false), and may have `question` and
    `reference`.
    """
    import anyio

    from hud_grader_llm.calibration import calibrate as compare_all
    from hud_grader_llm.calibration import read_labelled
    from hud_grader_llm.rubric import Rubric

    held = Rubric.load(rubric)
    items = read_labelled(labelled, held)

    async def run() -> Calibration:
        return await compare_all(
            held,
            items,
            at_once=at_once,
            model=list(model) or None,
            votes=votes,
            base_url=base_url,
            cache=not no_cache,
        )

    result = anyio.run(run)
    if as_json:
        click.echo(json.dumps({"answers": len(items), **asdict(result)}, indent=2))
    else:
        _show(result, len(items))
    overall = result.overall
    kappa = overall.kappa if overall else None
    if min_kappa is not None and (kappa is None or kappa < min_kappa):
        why = "not defined, since all are of one kind" if kappa is None else f"{kappa:.2f}"
        click.echo(f"kappa over all is {why}; --min-kappa asks for {min_kappa:g}", err=True)
        raise click.exceptions.Exit(1)


def _show(result: Calibration, count: int) -> None:
    rows = [*result.criteria, *([result.overall] if result.overall and len(result.criteria) > 1 else [])]
    width = max([len("criterion"), *(len(row.name) for row in rows)])
    click.echo(
        f"{'criterion':{width}}  {'n':>5}  {'accuracy':>8}  {'kappa':>6}  {'false met':>9}  {'false unmet':>11}"
    )
    for row in rows:
        click.echo(_line(row, width))
    cost = "unknown" if result.cost_usd is None else f"${result.cost_usd:.4f}"
    click.echo(f"\n{count} answers, {len(result.undecided)} verdicts missing, cost {cost}")
    for name in result.unlabelled:
        click.echo(f"  no answer is labelled for {name}")
    for texts, most in ((result.undecided, 10), (result.disagreements, 20)):
        for text in texts[:most]:
            click.echo(f"  {text[:300]}")
        if len(texts) > most:
            click.echo(f"  and {len(texts) - most} more, which --json shows")


def _line(row: Agreement, width: int) -> str:
    kappa = "n/a" if row.kappa is None else f"{row.kappa:.2f}"
    return (
        f"{row.name:{width}}  {row.count:>5}  {row.accuracy:>8.0%}  {kappa:>6}  {row.false_met:>9}  "
        f"{row.false_unmet:>11}"
    )
