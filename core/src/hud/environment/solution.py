"""The reference solution of a template: what the `oracle` agent runs, with an agent's powers and no more."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hud.errors import TemplateTypeError

if TYPE_CHECKING:
    from hud.environment.template import Template


class Solution:
    """An async function `(run) -> answer`, or `(run, **args)` to receive the row's arguments."""

    def __init__(self, template: Template, function: Callable[..., Any]) -> None:
        code = getattr(inspect.unwrap(function), "__code__", None)
        place = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)
        self.where: str = f"solution of template {template.id!r} ({place})"
        if not inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise TemplateTypeError(f"{self.where} must be `async def` and return the answer")
        self.template = template
        self.function = function

    async def __call__(self, run: Any, args: Mapping[str, Any]) -> Any:
        """Run it with the arguments it names, checked as the template's are and with its defaults."""
        checked = self.template.arguments.check(args)
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        known = self.template.arguments.parameters
        everything = {
            name: checked.get(name, parameter.default)
            for name, parameter in known.items()
            if name in checked or not parameter.required
        } | checked
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            wanted = everything
        else:
            names = {p.name for p in parameters}
            wanted = {name: value for name, value in everything.items() if name in names}
        return await self.function(run, **wanted)
