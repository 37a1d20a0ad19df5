"""Where rows are read from: Python files and folders, JSON, and what plugins read."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from hud.errors import PluginNotInstalledError, TasksetError

if TYPE_CHECKING:
    from hud.types.task import Task

Read: TypeAlias = "tuple[str, Iterable[Task] | AsyncIterable[Task]]"
"""The rows' name and the rows."""

OWN_SUFFIXES = (".py", ".json", ".jsonl")


def read_source(source: str | Path, origins: dict[str, str] | None = None) -> Read:
    """Read rows from a Python file or folder (`file.py:NAME` takes one name of it), JSON, or a plugin's format.

    Raises:
        TasksetError: nothing is there, nothing reads it, or rows are wrong.
        SourceError: a Python source cannot be imported.
    """
    text = str(source)
    path = Path(text).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".py"):
        from hud.eval.discovery import rows_of

        found = _by_format(text) if path.is_dir() else None
        return found or rows_of(path)
    if path.is_file() and path.suffix in (".json", ".jsonl"):
        from hud.eval.rowfile import read_rows

        return path.stem, read_rows(path, origins)
    place, colon, attribute = text.rpartition(":")
    if colon and attribute.isidentifier() and Path(place).expanduser().suffix == ".py":
        from hud.eval.discovery import rows_named

        return rows_named(Path(place).expanduser(), attribute)
    found = _by_format(text)
    if found is not None:
        return found
    if path.exists():
        raise TasksetError(f"{text}: nothing reads {path.suffix or 'such'} files; {_readable()}")
    raise TasksetError(f"{text}: there is no such file or folder (looked in {path.resolve().parent})")


def _by_format(source: str) -> Read | None:
    """Ask the installed formats; `None` where none takes the source."""
    from hud.plugins.host import current_host

    registry = current_host().registry
    kind = registry.taskset_format_for(source)
    if kind is None:
        return None
    rows = registry.load(kind)(source)
    name = source.rstrip("/").rpartition("/")[2].rpartition(":")[2] or kind.name
    return Path(name).stem, rows


def _readable() -> str:
    from hud.plugins.host import current_host

    formats = [f"{kind.pattern} ({kind.name})" for kind in current_host().registry.taskset_formats()]
    return f"rows are read from {', '.join([*OWN_SUFFIXES, 'a folder', *formats])}"


def read_module(module: Any) -> Read:
    """Collect the public rows of a module, or of the Python file named."""
    from hud.eval.discovery import public_rows, rows_of

    if not isinstance(module, ModuleType):
        return rows_of(Path(module))
    name, rows = public_rows(module)
    return name or module.__name__.rpartition(".")[2], rows


def platform_taskset(name_or_id: str) -> Any:
    """Fetch a taskset of the platform; raises `PluginNotInstalledError` where its plugin is absent."""
    from hud.plugins.first_party import how_to_install
    from hud.plugins.host import current_host

    registry = current_host().registry
    kind = registry.taskset_format_for(f"hud:{name_or_id}")
    if kind is None:
        raise PluginNotInstalledError(
            f"taskset {name_or_id!r} is the platform's and needs {how_to_install('hud-runtime-hud')}; "
            "or export it to a file and use Taskset.from_file"
        )
    from hud.eval.taskset import Taskset

    return Taskset(name_or_id, registry.load(kind)(f"hud:{name_or_id}"), taskset_id=name_or_id)
