"""The hook reference, from `hookspecs.py`, `events.py` and `kinds.py` themselves."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

from hud.plugins import events
from hud.plugins.hookspecs import HookSpecs, hook_names
from hud.plugins.kinds import Declaration
from hud.plugins.validation import NOUNS

PARTS = ("Fires", "Dispatch", "Returns", "On an exception", "Used by")


def reference() -> str:
    """Return the page: nouns with their declarations' fields, verbs with their events' fields."""
    parts = ["# Hooks\n\nGenerated from the code; the handbook is [Writing plugins](../plugins/index.md).\n"]
    parts.append(inspect.cleandoc(inspect.getmodule(HookSpecs).__doc__ or "").partition("\n\n")[2] + "\n")
    nouns = [name for name in hook_names() if name in NOUNS]
    verbs = [name for name in hook_names() if name not in NOUNS]
    parts.append("## Nouns\n")
    parts += [_noun(name) for name in nouns]
    parts.append("## Verbs\n")
    parts += [_verb(name) for name in verbs]
    return "\n".join(parts)


def sections(hook: str) -> tuple[str, dict[str, str]]:
    """Return a hook's first sentence, and what its docstring says under each of `PARTS`."""
    text = inspect.cleandoc(getattr(HookSpecs, hook).__doc__ or "")
    first, _, rest = text.partition("\n\n")
    found: dict[str, str] = {}
    current = ""
    for line in rest.splitlines():
        head, colon, tail = line.partition(": ")
        if colon and head in PARTS:
            current = head
            found[current] = tail.strip()
        elif current:
            found[current] += f" {line.strip()}"
    return first, found


def _noun(hook: str) -> str:
    kind = NOUNS[hook]
    signature = f"def {hook}() -> Iterable[{kind.__name__}]"
    return _entry(hook, signature, _fields(kind.__name__, kind))


def _verb(hook: str) -> str:
    function = getattr(HookSpecs, hook)
    word = "async def" if inspect.iscoroutinefunction(function) else "def"
    event = function.__annotations__["event"]
    signature = f"{word} {hook}(event: {event}) -> {function.__annotations__['return']}"
    return _entry(hook, signature, _fields(event, getattr(events, event)))


def _entry(hook: str, signature: str, table: str) -> str:
    first, said = sections(hook)
    lines = [f"### {hook}\n", f"```python\n{signature}\n```\n", f"{first}\n"]
    lines += [f"- **{part}**: {said[part]}" for part in PARTS if part in said]
    return "\n".join([*lines, "", table])


def _fields(name: str, cls: type[Any]) -> str:
    lines = [inspect.cleandoc(cls.__doc__ or "") + "\n", f"| `{name}` | type | default |", "|---|---|---|"]
    for field in dataclasses.fields(cls):
        default = (
            "required"
            if _required(field)
            else ""
            if field.default is dataclasses.MISSING
            else repr(field.default)
        )
        lines.append(
            f"| `{field.name}` | `{str(field.type).replace('|', chr(92) + '|')}` | {default and f'`{default}`'} |"
        )
    if issubclass(cls, Declaration) and cls is not Declaration:
        lines.append("")
        lines.append(inspect.cleandoc(Declaration.__doc__ or "").partition("\n\n")[2])
    return "\n".join([*lines, ""])


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def write(folder: Path) -> Path:
    """Write the page into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "hooks.md"
    path.write_text(reference(), encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write(Path(__file__).parent / "reference"))
