"""Public names that import what they need on first use (PEP 562), those of plugins included."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(module: str, core: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for `module`.

    `core` maps a name to `package.module:attribute` within core. Any other name is looked up among what
    plugins export under `module`; a first-party name whose plugin is absent gives a stand-in class.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - the name PEP 562 gives
        target = core.get(name)
        if target is not None:
            home, _, attribute = target.partition(":")
            value = getattr(importlib.import_module(home), attribute)
            setattr(sys.modules[module], name, value)
            return value
        if not name.startswith("_"):
            from hud.plugins.registry import exported

            found = exported(module, name)
            if found is not None:
                setattr(sys.modules[module], name, found)
                return found
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*core, *(n for n in vars(sys.modules[module]) if not n.startswith("_"))})

    return __getattr__, __dir__
