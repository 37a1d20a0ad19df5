"""Import one plugin so that whatever is wrong with it stays its own."""

from __future__ import annotations

import inspect
import sys
import time
import traceback
from contextlib import redirect_stdout
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hud.plugins.compatibility import core_refusal
from hud.plugins.plugin import Plugin

if TYPE_CHECKING:
    from hud.plugins.policy import PluginPolicy


def load(plugin: Plugin, policy: PluginPolicy, core_version: str) -> None:
    """Import `plugin`'s declaration module and read its hooks; afterwards it is loaded, broken or disabled.

    What the module prints goes to stderr.
    `KeyboardInterrupt` passes: it is the user's. An `os._exit`, a crash and an endless import cannot be contained.
    """
    refusal = policy.refusal(plugin.name, plugin.dist)
    if refusal is not None:
        plugin.status, plugin.problem = "disabled", refusal
        return
    if plugin.entry_point is not None:
        unmet = core_refusal(plugin.entry_point.dist.requires, core_version)
        if unmet is not None:
            plugin.break_with(f"it requires {unmet} and hud-core is {core_version}")
            return
    plugin.status = "loading"
    began = time.perf_counter()
    try:
        with redirect_stdout(sys.stderr):  # stdout is the command's, JSON say
            plugin.object = _resolve(plugin.value)
    except KeyboardInterrupt:
        plugin.status = "waiting"
        raise
    except BaseException as error:  # noqa: BLE001 - a broken plugin takes down nothing but itself
        plugin.break_with(f"importing {plugin.value} raised {described(error)}{_where(error)}", error)
        return
    finally:
        plugin.import_s = time.perf_counter() - began
    examine(plugin)


def examine(plugin: Plugin) -> None:
    """Read the hooks of `plugin.object`; afterwards it is loaded or broken."""
    from hud.plugins.validation import ContractError, implementations_of

    try:
        plugin.implementations = implementations_of(plugin)
    except ContractError as error:
        plugin.break_with(str(error), error)
    except Exception as error:  # noqa: BLE001 - its attributes may raise when read
        plugin.break_with(f"reading its hooks raised {described(error)}", error)
    else:
        plugin.status = "loaded"


def target_of(path: str) -> Any:
    """Import `package.module:attribute` and return it."""
    module, _, attributes = path.partition(":")
    value: Any = import_module(module)
    for attribute in attributes.split(".") if attributes else ():
        value = getattr(value, attribute)
    return value


def described(error: BaseException) -> str:
    """Return an exception as one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _resolve(value: str) -> Any:
    found = target_of(value)
    if inspect.isclass(found):
        from hud.plugins.hookspecs import HookSpecs

        if issubclass(found, HookSpecs):
            return found()
    return found


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f" ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith("<frozen") and f.filename != __file__]
    own = [f for f in own if "importlib" not in f.filename]
    return f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
