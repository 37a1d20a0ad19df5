"""Whether an object keeps the hooks' contract; asked before anything is registered."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hud.plugins.hookspecs import PROJECT, HookSpecs, hook_names
from hud.plugins.kinds import (
    AgentKind,
    CapabilityKind,
    CommandKind,
    Declaration,
    GraderKind,
    RuntimeKind,
    TasksetFormatKind,
    TemplateKind,
    TransportKind,
)
from hud.plugins.plugin import Implementation, Plugin

NOUNS: dict[str, type[Declaration]] = {
    "hud_capabilities": CapabilityKind,
    "hud_runtimes": RuntimeKind,
    "hud_graders": GraderKind,
    "hud_agents": AgentKind,
    "hud_taskset_formats": TasksetFormatKind,
    "hud_commands": CommandKind,
    "hud_templates": TemplateKind,
    "hud_transports": TransportKind,
}


class ContractError(Exception):
    """Raised when a plugin breaks the hooks' contract; the message is what its author reads."""


def implementations_of(plugin: Plugin) -> dict[str, Implementation]:
    """Return the hooks `plugin.object` implements, and note functions that look like hooks but are not marked.

    Raises:
        ContractError: it implements none, an unknown one, or one with a wrong signature or colour.
    """
    found: dict[str, Implementation] = {}
    known = hook_names()
    for name in sorted(set(dir(plugin.object))):
        if name.startswith("__"):
            continue
        function = _function(plugin.object, name)
        if function is None:
            continue
        options = getattr(function, f"{PROJECT}_impl", None)
        if not isinstance(options, dict):
            if name in known and not hasattr(function, f"{PROJECT}_spec"):
                plugin.notes.append(f"{name} is not marked @hookimpl and is never called")
            continue
        hook = options.get("specname") or name
        if hook not in known:
            if options.get("optionalhook"):
                continue
            raise ContractError(_unknown(hook, known))
        if options.get("wrapper") or options.get("hookwrapper"):
            raise ContractError(f"{hook}: wrappers are not offered; declare a noun that wraps instead")
        found[hook] = Implementation(
            plugin,
            hook,
            function,
            _takes_event(hook, function),
            bool(options.get("tryfirst")),
            bool(options.get("trylast")),
        )
    if not found:
        raise ContractError(_no_hooks(plugin))
    return found


def declarations_of(implementation: Implementation) -> tuple[Declaration, ...]:
    """Ask a noun hook what it declares.

    Raises:
        ContractError: the answer is no iterable of the hook's declarations, or one of them is malformed.
        BaseException: whatever the plugin's function raised.
    """
    kind = NOUNS[implementation.hook]
    answer = implementation()
    if isinstance(answer, Declaration):
        raise ContractError(
            f"{implementation.hook} returned one {type(answer).__name__}; return a list of them"
        )
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Iterable):
        raise ContractError(
            f"{implementation.hook} returned {_shown(answer)}; return a list of {kind.__name__}"
        )
    declared = tuple(answer)
    names: set[str] = set()
    for item in declared:
        if not isinstance(item, kind):
            raise ContractError(
                f"{implementation.hook} returned a list with {_shown(item)}; every item must be a {kind.__name__}"
            )
        _check(implementation.hook, item)
        if item.name in names:
            raise ContractError(f"{implementation.hook} declares {item.name!r} twice")
        names.add(item.name)
    return declared


def near(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` where one of `names` is close to `name`, else nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _function(holder: Any, name: str) -> Callable[..., Any] | None:
    static = inspect.getattr_static(holder, name, None)
    if isinstance(static, (property, type)) or static is None:
        return None
    if isinstance(static, (staticmethod, classmethod)) or inspect.isroutine(static):
        value: Callable[..., Any] = getattr(holder, name)
        return value
    return None


def _takes_event(hook: str, function: Callable[..., Any]) -> bool:
    spec = getattr(HookSpecs, hook)
    verb = hook not in NOUNS
    where = f"{hook}{_place(function)}"
    if inspect.isasyncgenfunction(function):
        raise ContractError(f"{where} is an async generator; return the answer instead")
    if inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(spec):
        raise ContractError(f"{where} is `async def`; this hook is called synchronously, write `def`")
    parameters = list(inspect.signature(function).parameters.values())
    required = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not verb:
        if required:
            names = ", ".join(p.name for p in required)
            raise ContractError(f"{where} asks for {names}; it takes no argument")
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
        names = ", ".join(p.name for p in required)
        raise ContractError(f"{where} asks for ({names}); it takes one argument, `event`")
    if positional and positional[0].name != "event":
        raise ContractError(f"{where} names its argument {positional[0].name!r}; it must be `event`")
    return bool(positional)


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f" (line {code.co_firstlineno})" if code is not None else ""


def _check(hook: str, item: Declaration) -> None:
    name: Any = item.name  # a plugin may not be type-checked
    if not isinstance(name, str) or not name.strip() or "@" in name:
        raise ContractError(f"{hook} declares the name {name!r}; a name is text without `@`")
    targets: Mapping[str, Any] = item.targets()
    if not targets:
        raise ContractError(f"{hook} declares {name!r} without a target")
    for role, target in targets.items():
        _check_target(hook, name, role, target)
    for module, exported in item.exports.items():
        for public, target in exported.items():
            _check_target(hook, name, f"exports[{module!r}][{public!r}]", target)
    if isinstance(item, CapabilityKind):
        protocols: Any = item.protocols
        if not isinstance(protocols, tuple) or not protocols or not all("/" in str(p) for p in protocols):
            raise ContractError(
                f"{hook} declares {name!r} with protocols={protocols!r}; write a tuple such as ('ssh/2',)"
            )


def _check_target(hook: str, name: str, role: str, target: object) -> None:
    module, colon, attribute = target.partition(":") if isinstance(target, str) else ("", "", "")
    parts = [*module.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise ContractError(
            f"{hook} declares {name!r} with {role}={target!r}; write 'package.module:attribute'"
        )


def _unknown(hook: str, known: list[str]) -> str:
    return (
        f"implements {hook}, which this hud does not have{near(hook, known)} "
        f"(for a hook of a later hud, mark it optionalhook=True)"
    )


def _no_hooks(plugin: Plugin) -> str:
    return f"{plugin.value} is {_shown(plugin.object)} and implements no hook; mark its functions @hookimpl"


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '...'}"
