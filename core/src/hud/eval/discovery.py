"""The rows a Python source offers."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hud.errors import SourceError, TasksetError
from hud.types.task import Task

if TYPE_CHECKING:
    from hud.environment.env import Environment
    from hud.environment.template import Template
    from hud.eval.sources import Read

NOT_READ = frozenset({"conftest", "setup", "__init__", "__main__", "solutions", "hudfile"})


def rows_of(source: Path) -> Read:
    """Return the rows of a file or a folder, found in this order.

    Its public `Task`s, `Taskset`s and lists of `Task`; else a row for each template whose arguments all have
    defaults; else the rows of a sibling `tasks.py` (said on stderr).

    Raises:
        TasksetError: there are none; lists the templates with the arguments they need.
        SourceError: a file cannot be imported, or declares nothing at all.
    """
    if not source.exists():
        raise SourceError(f"{source}: there is no such file or folder (looked in {source.resolve().parent})")
    modules = list(_modules(source))
    name, rows = _merged(modules)
    if not _is_empty(rows):
        return name or _named(source), rows
    environments = _environments(modules)
    templates = [template for env in environments for template in env.templates.values()]
    if by_default := [template() for template in templates if template.arguments.all_optional]:
        return name or _named(source), by_default
    sibling = (source if source.is_dir() else source.parent) / "tasks.py"
    if sibling.is_file() and sibling.resolve() != source.resolve() and not source.is_dir():
        print(f"{source} has no rows of its own; reading {sibling}", file=sys.stderr)
        return rows_of(sibling)
    raise _no_rows(source, templates)


def rows_named(file: Path, attribute: str) -> Read:
    """Return the rows that `attribute` of a Python file holds."""
    from hud.environment.source_modules import import_file

    module = import_file(_existing(file).resolve())
    if not hasattr(module, attribute):
        raise TasksetError(f"{file} has no {attribute!r}; public names: {', '.join(_public(module))}")
    name, rows = _read_values([getattr(module, attribute)], module)
    if _is_empty(rows):
        kind = type(getattr(module, attribute)).__name__
        raise TasksetError(f"{file}:{attribute} is a {kind}, no Task, Taskset or list of Task")
    return name or attribute, rows


def public_rows(module: ModuleType) -> tuple[str | None, Iterable[Task] | AsyncIterable[Task]]:
    """Return a module's public rows, each once, and the name of its Taskset where it has one."""
    return _read_values([getattr(module, name) for name in _public(module)], module)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise SourceError(f"{file}: there is no such file (looked in {file.resolve().parent})")
    return file


def _named(source: Path) -> str:
    source = source.resolve()
    if source.is_dir():
        return source.name
    return source.parent.name if source.stem in ("tasks", "env") else source.stem


def _modules(source: Path) -> Iterator[ModuleType]:
    from hud.environment.source_modules import import_file

    if source.is_file():
        yield import_file(source.resolve())
        return
    if (tasks := source / "tasks.py").is_file():
        yield import_file(tasks.resolve())
        return
    files = sorted(source.glob("*.py"), key=lambda file: (file.name != "env.py", file.name))
    for file in files:
        if file.stem not in NOT_READ and not file.stem.startswith("test_") and b"hud" in file.read_bytes():
            yield import_file(file.resolve())


def _public(module: ModuleType) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")]


def _merged(modules: list[ModuleType]) -> tuple[str | None, Iterable[Task] | AsyncIterable[Task]]:
    if len(modules) == 1:
        return public_rows(modules[0])
    rows: list[Task] = []
    for module in modules:
        _, found = public_rows(module)
        if isinstance(found, list):
            rows += [row for row in found if not any(row is known for known in rows)]
    return None, rows


def _read_values(
    values: list[Any], module: ModuleType
) -> tuple[str | None, Iterable[Task] | AsyncIterable[Task]]:
    from hud.eval.taskset import Taskset

    sets = [value for value in values if isinstance(value, Taskset)]
    sets = [one for place, one in enumerate(sets) if all(one is not known for known in sets[:place])]
    lazy = [one for one in sets if one.is_lazy]
    if lazy:
        if len(sets) > 1:
            raise TasksetError(
                f"{module.__name__} has {len(sets)} tasksets, one of them a generator; name one: FILE.py:NAME"
            )
        return lazy[0].name, lazy[0].rows()
    found: dict[int, Task] = {}
    for value in values:
        for row in _rows_in(value, Taskset):
            found.setdefault(id(row), row)
    rows = [_located(row, module) for row in found.values()]
    return (sets[0].name if len(sets) == 1 else None), rows


def _rows_in(value: Any, taskset: type[Any]) -> Iterable[Task]:
    if isinstance(value, Task):
        return [value]
    if isinstance(value, taskset):
        rows: Iterable[Task] = value
        return rows
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Task) for item in value):
        return value
    return ()


def _located(row: Task, module: ModuleType) -> Task:
    """Give a row written as plain data the place its environment is declared in."""
    file = getattr(module, "__file__", None)
    if row.source is None and file is not None:
        beside = Path(file).with_name("env.py")
        row.source = beside if beside.is_file() else Path(file)
    return row


def _is_empty(rows: Any) -> bool:
    return isinstance(rows, list) and not rows


def environments_of(file: Path) -> list[Environment]:
    """Import a Python file and return the environments it declares or imports."""
    from hud.environment.source_modules import import_file

    return _environments([import_file(_existing(file).resolve())])


def _environments(modules: list[ModuleType]) -> list[Environment]:
    from hud.environment.env import Environment

    found: list[Environment] = []
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Environment) and all(value is not known for known in found):
                found.append(value)
    return found


def _no_rows(source: Path, templates: list[Template]) -> TasksetError:
    if not templates:
        return TasksetError(
            f"{source} has no rows: no public Task, Taskset or list of Task, and no template. "
            "Write `TASKS = Taskset('name', [template(...), ...])`"
        )
    lines = [f"  {template.id}({_needed(template)})" for template in templates]
    example = templates[0]
    args = json.dumps({name: "..." for name, p in example.arguments.parameters.items() if p.required})
    return TasksetError(
        f"{source} has no rows, and each of its templates needs arguments:\n"
        + "\n".join(lines)
        + f"\ngive them with --task {example.id} --args '{args}', or list rows in tasks.py"
    )


def _needed(template: Template) -> str:
    return ", ".join(
        name if parameter.required else f"{name}={parameter.default!r}"
        for name, parameter in template.arguments.parameters.items()
    )
