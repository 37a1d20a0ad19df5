"""`hud export`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click

from hud_export.exporting import FORMATS, export_job


def _ids(_context: click.Context, _argument: click.Parameter, incomplete: str) -> list[str]:
    """Return ids of kept jobs that begin so."""
    from hud.cli.completions import jobs

    return jobs(incomplete)


@click.command()
@click.argument("job", shell_complete=_ids)
@click.option(
    "--format", "format_name", type=click.Choice(list(FORMATS)), help="By default the suffix of FILE."
)
@click.option("--output", "-o", required=True, metavar="FILE", help="Where to write; - is standard output.")
@click.option("--force", is_flag=True, help="Replace FILE where it exists.")
def export(job: str, format_name: str | None, output: str, force: bool) -> None:
    """Write JOB (an id, the beginning of one, or a file) as Parquet, an Inspect log or lines of JSON."""
    if output == "-":
        _to_stdout(job, format_name or "jsonl")
        return
    target = Path(output)
    if target.exists() and not force:
        raise click.UsageError(f"{target} exists; --force replaces it")
    export_job(job, target, format_name=format_name)
    click.echo(f"{target}: {target.stat().st_size:,} bytes", err=True)


def _to_stdout(job: str, format_name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hud-export-") as folder:
        made = export_job(job, Path(folder) / f"job.{format_name}")
        with made.open("rb") as written:
            shutil.copyfileobj(written, sys.stdout.buffer)
    sys.stdout.buffer.flush()
