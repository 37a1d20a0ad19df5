"""The tasks of a job that is over, as they are today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.eval.taskset import Taskset


def rows_today(path: Path, source: str | None, runtime: str | None) -> tuple[Taskset, Any]:
    """Return the rows that the job in the file `path` was made of, and where they run; goes to the job's folder.

    `source` and `runtime` are given anew, None takes the job's.

    Raises:
        UsageError: the job does not say where its tasks are, or they cannot be read.
    """
    from hud.cli.eval_request import EvalRequest
    from hud.cli.preparation import rows_of, runtime_of
    from hud.cli.resuming import enter_folder
    from hud.plugins.hudfile import load_hudfile
    from hud.store.reader import JobFile

    with JobFile(path) as file:
        record = file.job()
    kept = (record.get("options") or {}).get("request") or {}
    chosen: dict[str, Any] = {}
    if source is not None:
        source = str(Path(source).resolve())
    else:
        source = kept.get("source") or record.get("source")
        chosen = {name: kept[name] for name in ("template", "template_args") if kept.get(name)}
    if source is None:
        raise UsageError(f"job {path.stem} does not say where its tasks are; name the place with --source")
    if kept.get("folder"):
        enter_folder(Path(kept["folder"]), path.stem)
    load_hudfile()
    rows = rows_of(EvalRequest(source=source, agent="none", **chosen))
    return rows, runtime_of(runtime if runtime is not None else kept.get("runtime"))
