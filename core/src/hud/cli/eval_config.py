"""Options of `hud eval` kept in files: `.hud_eval.toml`, and `[eval]` of hud.toml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hud.errors import ConfigError
from hud.settings.hudtoml import project
from hud.settings.places import line_of
from hud.settings.variables import variable

OWN_FILE = ".hud_eval.toml"

OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "source": str,
    "agent": str,
    "model": str,
    "task_ids": (list, str),
    "all": bool,
    "full": bool,
    "limit": int,
    "max_concurrent": int,
    "max_steps": int,
    "verbose": bool,
    "very_verbose": bool,
    "auto_respond": bool,
    "group": int,
    "group_size": int,
    "gateway": bool,
    "runtime": str,
    "remote": bool,
    "name": str,
    "tag": (list, str),
    "seed": int,
    "fail_under": (float, int),
    "timeout": (float, int),
    "retries": int,
    "keep": str,
    "budget": (list, str),
    "keep_state": bool,
    "verdict_cache": bool,
    "deadlines": dict,
}

PARAMETERS: Mapping[str, str] = {"group_size": "group", "tag": "tags", "all": "run_all"}
"""What the command calls an option, where that is not its key."""


@dataclass(slots=True)
class FileOptions:
    """Options by the command's names, the configuration of each agent by its name, and where each option stands."""

    options: dict[str, Any] = field(default_factory=dict)
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


def read(folder: Path) -> FileOptions:
    """Return the options that hold in `folder`, and the configuration of each agent named there.

    `.hud_eval.toml` has `[eval]` and one section an agent; hud.toml may have `[eval]` and `[agents.NAME]`, which the
    former overrides. `${VAR}` stands for an environment variable.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or a variable is not set; names file and line.
    """
    found = _of_project(folder)
    own = folder / OWN_FILE
    if own.is_file():
        text = own.read_text(encoding="utf-8")
        for section, content in _parsed(own, text).items():
            if not isinstance(content, dict):
                raise ConfigError(
                    f"{own}:{line_of(text, [section])}: {section} stands outside a section; put it under [eval]"
                )
            expanded = _expanded(own, text, (section,), content)
            if section == "eval":
                _take(found, own, text, ("eval",), expanded)
            else:
                found.agents[section] = {**found.agents.get(section, {}), **expanded}
    return found


def _of_project(folder: Path) -> FileOptions:
    found, of_project = FileOptions(), project(folder)
    if of_project.path is None or not (of_project.eval or of_project.agents):
        return found
    text = of_project.path.read_text(encoding="utf-8")
    prefix = () if of_project.path.name == "hud.toml" else ("tool", "hud")
    at = (*prefix, "eval")
    _take(found, of_project.path, text, at, _expanded(of_project.path, text, at, of_project.eval))
    found.agents = _expanded(of_project.path, text, (*prefix, "agents"), of_project.agents)
    return found


def _parsed(path: Path, text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: {exc}") from exc


def _take(found: FileOptions, path: Path, text: str, at: tuple[str, ...], section: Mapping[str, Any]) -> None:
    """Check a section and take its options into `found`."""
    for key, value in section.items():
        expected = OPTIONS.get(key)
        place = f"{path}:{line_of(text, [*at, key])}"
        if expected is None:
            from difflib import get_close_matches

            close = get_close_matches(key, OPTIONS, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(
                f"{place}: unknown option {key!r} in [eval]{meant}; allowed: {', '.join(OPTIONS)}"
            )
        wrong_bool = isinstance(value, bool) and expected is not bool
        if wrong_bool or not isinstance(value, expected):
            raise ConfigError(f"{place}: {key} must be {_named(expected)}, not {value!r}")
        once = isinstance(expected, tuple) and list in expected and isinstance(value, str)
        name = PARAMETERS.get(key, key)
        found.options[name] = [value] if once else value
        found.places[name] = place


def _expanded(path: Path, text: str, at: tuple[str, ...], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(path, text, (*at, key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(path, text, at, item) for item in value]
    if not isinstance(value, str):
        return value

    def filled(found: re.Match[str]) -> str:
        known = variable(found[1], folder=path.parent)
        if known is None:
            raise ConfigError(
                f"{path}:{line_of(text, at)}: {found[0]} is not set; export {found[1]}, or put it in .env"
            )
        return known

    return re.sub(r"\$\{(\w+)\}", filled, value)


def _named(expected: type | tuple[type, ...]) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    names[dict] = "a table"
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if float in kinds:
        return "a number"
    return " or ".join(names[kind] for kind in kinds)
