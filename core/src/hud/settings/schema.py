"""Checks a table of hud.toml against what it may hold; every complaint names line, close key, allowed values."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hud.errors import ConfigError
from hud.settings.places import line_of

Path = tuple[str, ...]
Check = Callable[["Document", Path, Any], Any]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file, for messages: `prefix` is `("tool", "hud")` within pyproject.toml."""

    file: str
    text: str
    prefix: Path = ()

    def error(self, path: Path, message: str) -> ConfigError:
        """Make the error for the value at `path`."""
        line = line_of(self.text, (*self.prefix, *path))
        return ConfigError(f"{self.file}:{line}: {message}")


def text(*allowed: str) -> Check:
    """Accept text, one of `allowed` where some are given."""

    def check(doc: Document, path: Path, value: Any) -> str:
        if not isinstance(value, str):
            raise doc.error(path, f"{shown(path)} must be text, not {found(value)}")
        if allowed and value not in allowed:
            raise doc.error(
                path, f"{shown(path)} is {value!r}{near(value, allowed)}; allowed: {', '.join(allowed)}"
            )
        return value

    return check


def flag(doc: Document, path: Path, value: Any) -> bool:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise doc.error(path, f"{shown(path)} must be true or false, not {found(value)}")
    return value


def number(minimum: float = 0.0, *, whole: bool = False) -> Check:
    """Accept a finite number of at least `minimum`."""

    def check(doc: Document, path: Path, value: Any) -> int | float:
        what = "a whole number" if whole else "a number"
        fits = isinstance(value, int) if whole else isinstance(value, (int, float))
        if isinstance(value, bool) or not fits:
            raise doc.error(path, f"{shown(path)} must be {what}, not {found(value)}")
        if not math.isfinite(value) or value < minimum:
            raise doc.error(path, f"{shown(path)} must be {what} of at least {minimum:g}, not {value}")
        return value if whole else float(value)

    return check


def texts(doc: Document, path: Path, value: Any) -> list[str]:
    """Accept a list of text."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise doc.error(path, f"{shown(path)} must be a list of text, not {found(value)}")
    return list(value)


def patterns(doc: Document, path: Path, value: Any) -> list[str]:
    """Accept a list of regular expressions."""
    for item in texts(doc, path, value):
        try:
            re.compile(item)
        except re.error as error:
            raise doc.error(path, f"{shown(path)}: {item!r} is no regular expression: {error}") from None
    return list(value)


def either(*checks: Check, what: str) -> Check:
    """Accept what one of `checks` accepts; `what` names it in the message."""

    def check(doc: Document, path: Path, value: Any) -> Any:
        for one in checks:
            try:
                return one(doc, path, value)
            except ConfigError:
                continue
        raise doc.error(path, f"{shown(path)} must be {what}, not {found(value)}")

    return check


def anything(doc: Document, path: Path, value: Any) -> dict[str, Any]:
    """Accept any table; whoever uses it checks it."""
    if not isinstance(value, dict):
        raise doc.error(path, f"{shown(path)} must be a table, not {found(value)}")
    return dict(value)


def table(required: Sequence[str] = (), **keys: Check) -> Check:
    """Accept a table with these keys and no others."""

    def check(doc: Document, path: Path, value: Any) -> dict[str, Any]:
        content = anything(doc, path, value)
        for key in content:
            if key not in keys:
                raise doc.error((*path, key), _unknown(path, key, keys))
        for key in required:
            if key not in content:
                raise doc.error(path, f"[{shown(path)}] needs the key {key!r}")
        return {key: keys[key](doc, (*path, key), item) for key, item in content.items()}

    return check


def named(item: Check) -> Check:
    """Accept a table of any keys, each value checked by `item`."""

    def check(doc: Document, path: Path, value: Any) -> dict[str, Any]:
        return {key: item(doc, (*path, key), one) for key, one in anything(doc, path, value).items()}

    return check


def shown(path: Path) -> str:
    """Return a key's path as TOML writes it."""
    return ".".join(p if re.fullmatch(r"[A-Za-z0-9_-]+", p) else f'"{p}"' for p in path)


def near(word: str, words: Sequence[str] | Mapping[str, Any]) -> str:
    """Return `; did you mean 'x'?` where one of `words` is close."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def found(value: Any) -> str:
    """Return a value with its TOML type, cut short."""
    kinds = {
        str: "text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }
    text_form = repr(value)
    cut = text_form if len(text_form) <= 60 else f"{text_form[:57]}..."
    return f"{kinds.get(type(value), type(value).__name__)} ({cut})"


def _unknown(path: Path, key: str, keys: Mapping[str, Check]) -> str:
    where = f"in [{shown(path)}]" if path else "at the top"
    return f"unknown key {key!r} {where}{near(key, keys)}; allowed: {', '.join(sorted(keys))}"
