"""Options of `hud eval` kept in files: `.hud_eval.toml`, and `[eval]` of hud.toml."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hud.errors import ConfigError

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
    "deadlines": dict,
}


def read(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the options of `folder`, and the configuration of each agent named there.

    `.hud_eval.toml` has `[eval]` and one section an agent; hud.toml may have `[eval]`, which the former overrides.
    `${VAR}` stands for an environment variable.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or a variable is not set; names file and line.
    """
    options = _project_options(folder / "hud.toml")
    own = folder / OWN_FILE
    agents: dict[str, dict[str, Any]] = {}
    if own.is_file():
        text = own.read_text(encoding="utf-8")
        for section, content in _parsed(own, text).items():
            if not isinstance(content, dict):
                raise ConfigError(
                    f"{_place(own, text, section)}: {section} stands outside a section; put it under [eval]"
                )
            content = _expanded(own, text, content)
            if section == "eval":
                options |= _checked(own, text, content)
            else:
                agents[section] = content
    return options, agents


def _project_options(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    section = _parsed(path, text).get("eval", {})
    if not isinstance(section, dict):
        raise ConfigError(f"{_place(path, text, 'eval')}: eval must be a table, not {section!r}")
    return _checked(path, text, _expanded(path, text, section))


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: {exc}") from exc


def _checked(path: Path, text: str, section: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in section.items():
        expected = OPTIONS.get(key)
        if expected is None:
            close = get_close_matches(key, OPTIONS, n=1)
            meant = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(OPTIONS)}"
            raise ConfigError(f"{_place(path, text, key)}: unknown option {key!r} in [eval]{meant}")
        wrong_bool = isinstance(value, bool) and expected is not bool
        if wrong_bool or not isinstance(value, expected):
            raise ConfigError(f"{_place(path, text, key)}: {key} must be {_named(expected)}, not {value!r}")
        out["group" if key == "group_size" else key] = value
    return out


def _expanded(path: Path, text: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(path, text, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(path, text, item) for item in value]
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(f"{_place(path, text, found[0])}: {found[0]} is not set in the environment")
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)\}", variable, value)


def _place(path: Path, text: str, word: str) -> str:
    for number, line in enumerate(text.splitlines(), start=1):
        if re.search(rf"(?<![\w]){re.escape(word)}(?![\w])", line):
            return f"{path}:{number}"
    return str(path)


def _named(expected: type | tuple[type, ...]) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    names[dict] = "a table"
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if float in kinds:
        return "a number"
    return " or ".join(names[kind] for kind in kinds)
