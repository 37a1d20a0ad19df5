"""Public names that import what they need on first use (PEP 562), those of plugins included."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # what checkers take for typing's; `import hud` costs a third without that import

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def lazy_names(
    module: str, core: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for `module`.

    `core` maps a name to `package.module:attribute` within core. Any other name is looked up among the
    first-party names (hud.plugins.first_party): a plugin's own object, or a stand-in class while the plugin is
    absent. `__all__` and `__dir__` list core names and those already resolved, so that star imports and
    documentation tools never touch an absent plugin.
    """

    _outrank_submodules(module, core)

    def __getattr__(name: str) -> Any:  # noqa: N807 - the name PEP 562 gives
        target = core.get(name)
        if target is not None:
            value = _imported(target)
            setattr(sys.modules[module], name, value)
            return value
        if not name.startswith("_"):
            from hud.plugins.first_party import FIRST_PARTY

            if name in FIRST_PARTY.get(module, ()):
                from hud.plugins.exports import exported

                value, is_real = exported(module, name)
                if is_real:  # a stand-in is not kept: the plugin may be installed while we run
                    setattr(sys.modules[module], name, value)
                return value
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*core, *(n for n in vars(sys.modules[module]) if not n.startswith("_"))})

    return __getattr__, __dir__, sorted(core)


def _outrank_submodules(module: str, core: Mapping[str, str]) -> None:
    """Let a public name win over a submodule of the same name: `hud.graders.combine` is the function.

    Importing a submodule sets it as an attribute of its package, so that `__getattr__` is never asked for it. A
    property of the package's class is asked first; the submodule stays importable by its full name.
    """
    hidden = [name for name, target in core.items() if target.partition(":")[0] == f"{module}.{name}"]
    if not hidden:
        return

    def public(name: str) -> property:
        return property(lambda _: _imported(core[name]), lambda _, _submodule: None)

    package = sys.modules[module]
    package.__class__ = type("Package", (type(package),), {name: public(name) for name in hidden})


def _imported(target: str) -> Any:
    home, _, attribute = target.partition(":")
    __import__(home)
    return getattr(sys.modules[home], attribute)
