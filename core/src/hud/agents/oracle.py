"""The agent that runs a task's reference solution, with the powers of an agent and no more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hud.agents.base import PlainAgent
from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.environment.env import Environment
    from hud.environment.solution import Solution
    from hud.eval.run import Run
    from hud.types.task import Task


class OracleAgent(PlainAgent):
    """Proves that a task can be solved and that its grader says so.

    The solution is loaded here, on the agent's side: from the environment the row was made by or the file it was
    declared in, then from `source` (a file or folder), then from a `solutions.py` beside either.
    """

    name: ClassVar[str] = "oracle"

    def __init__(self, source: str | Path | None = None) -> None:
        super().__init__()
        self.source = source
        self._environments: dict[tuple[str, str], Environment | None] = {}

    async def __call__(self, run: Run) -> Any:
        """Run the row's solution and return its answer.

        Raises:
            UsageError: there is none; names where it was looked for.
        """
        return await self.solution_of(run.task)(run, run.task.args)

    def solution_of(self, task: Task) -> Solution:
        """Return the reference solution of `task`'s template."""
        looked: list[str] = []
        for place in self._places(task):
            env = self._load(place, task.env)
            looked.append(str(place) if not hasattr(place, "templates") else f"environment {task.env!r}")
            template = env.templates.get(task.id) if env is not None else None
            if template is not None and template.reference is not None:
                return template.reference
        where = ", ".join(dict.fromkeys(looked)) or "nowhere: the row does not say where it was declared"
        raise UsageError(
            f"no solution for task {task.id!r} of environment {task.env!r} (looked in {where}). "
            f"Write `@{task.id}.solution` beside the template, or name the file: --source PATH, source=PATH"
        )

    def _places(self, task: Task) -> list[Any]:
        """Return where a solution may be, nearest first: an environment, or files."""
        places: list[Any] = [] if task.source is None else [task.source]
        if self.source is not None:
            places.append(Path(self.source))
        files = [getattr(place, "source_file", place) for place in places]
        folders = [Path(f) if Path(f).is_dir() else Path(f).parent for f in files if f is not None]
        beside = [folder / "solutions.py" for folder in folders]
        return [*places, *(path for path in dict.fromkeys(beside) if path.is_file())]

    def _load(self, place: Any, name: str) -> Environment | None:
        if hasattr(place, "templates"):
            env: Environment = place
            return env
        key = (str(place), name)
        if key not in self._environments:
            self._environments[key] = _environment_of(Path(place), name)
        return self._environments[key]


def _environment_of(place: Path, name: str) -> Environment | None:
    """Import `place` and return its environment called `name`; None where it declares none of that name.

    A `solutions.py` imports its templates from the environment's file, and declares solutions as it is imported.
    """
    from hud.environment.env import Environment
    from hud.environment.loading import load_environment
    from hud.environment.source_modules import import_file

    if place.is_dir():
        return load_environment(place, name=name)
    module = import_file(place.resolve())
    values = list(vars(module).values())
    of_templates = [getattr(value, "env", None) for value in values]
    for found in (*values, *of_templates):
        if isinstance(found, Environment) and found.name == name:
            return found
    return None
