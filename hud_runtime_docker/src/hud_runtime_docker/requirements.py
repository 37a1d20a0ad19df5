"""What an environment's image must have installed: what its folder says, else what its files import."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from hud.errors import SourceError

OURS = ("hud-capability-", "hud-grader-")


def requirements_of(folder: Path) -> list[str]:
    """Return requirement lines: of requirements.txt, else of pyproject.toml, else of what is imported, at the
    versions installed here. Where none of ours is named, hud-core and every capability and grader installed here are
    added.

    Raises:
        SourceError: pyproject.toml cannot be read.
    """
    lines = _of_file(folder / "requirements.txt")
    if lines is None:
        lines = _of_project(folder / "pyproject.toml")
    if lines is None:
        lines = list(_of_imports(folder))
    named = {_name(line) for line in lines}
    if not named & {"hud-core", *_ours()}:
        lines += [pinned(name) for name in ("hud-core", *_ours())]
    elif "hud-core" not in named:
        lines.append(pinned("hud-core"))
    return lines


def installed(lines: Iterable[str]) -> list[str]:
    """Return `lines` as requirements that this interpreter's distributions are to meet; options of pip are dropped."""
    return [line.partition("#")[0].strip() for line in lines if line[:1] not in "-#"]


def pinned(name: str) -> str:
    """Return `name==version` as installed here."""
    return f"{name}=={metadata.version(name)}"


def _ours() -> list[str]:
    named = {point.dist.name for point in metadata.entry_points(group="hud") if point.dist is not None}
    return sorted(name for name in named if name.startswith(OURS))


def _of_file(path: Path) -> list[str] | None:
    if not path.is_file():
        return None
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _of_project(path: Path) -> list[str] | None:
    if not path.is_file():
        return None
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {}).get("dependencies")
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"{path}: {error}") from error
    return None if found is None else [str(line) for line in found]


def _of_imports(folder: Path) -> Iterator[str]:
    """Name the distributions that the folder's top-level files import."""
    files = [path for path in sorted(folder.glob("*.py")) if path.name != "solutions.py"]
    own = {path.stem for path in files} | {path.parent.name for path in folder.glob("*/__init__.py")}
    known = metadata.packages_distributions()
    names = {
        dist
        for path in files
        for module in _imported(path)
        if module not in own and module not in sys.stdlib_module_names and module != "hud"
        for dist in known.get(module, ())
    }
    yield from (pinned(name) for name in sorted(names))


def _imported(path: Path) -> set[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise SourceError(f"{path}: {error}") from error
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _name(line: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        return str(canonicalize_name(Requirement(line.partition("#")[0].strip()).name))
    except InvalidRequirement:
        return ""
