"""A template's arguments: their JSON Schema, made once, and the check before any author code runs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hud.environment.annotations import Rule, rule_for, with_json_retry
from hud.environment.models import rules_by_pydantic
from hud.errors import AuthoringError, BadParamsError, TemplateTypeError

BAD_PARAMS = -32602
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(slots=True, frozen=True)
class Parameter:
    """One argument: `default` is `inspect.Parameter.empty` where it must be given."""

    name: str
    rule: Rule
    default: Any

    @property
    def required(self) -> bool:
        """Whether a row has to give it."""
        return self.default is inspect.Parameter.empty


class Arguments:
    """The arguments of the template `where`, read from `function`'s signature on first use.

    Raises:
        TemplateTypeError: the signature cannot be called with names (`*args`, positional-only).
        AuthoringError: an annotation cannot be resolved or has no JSON Schema.
    """

    def __init__(self, function: Callable[..., Any], where: str, *, reserved: int = 0) -> None:
        self._where = where
        self.signature: inspect.Signature = inspect.signature(function)
        parameters = list(self.signature.parameters.values())[reserved:]
        self.open_ended: bool = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        for parameter in parameters:
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
                raise TemplateTypeError(
                    f"{where}: {parameter} cannot be given by name; a row's arguments are a mapping of names"
                )
        named = [p for p in parameters if p.kind in _NAMED]
        annotations = _resolved(function, named, where)
        plain = {name: rule_for(annotation) for name, annotation in annotations.items()}
        missing = {name: annotations[name] for name, rule in plain.items() if rule is None}
        self._definitions: dict[str, Any] = {}
        if missing:
            made, self._definitions = rules_by_pydantic(missing, where)
            plain.update(made)
        self.parameters: dict[str, Parameter] = {
            p.name: Parameter(p.name, Rule(rule.schema, with_json_retry(rule.check)), p.default)
            for p in named
            if (rule := plain[p.name]) is not None
        }
        self.schema: dict[str, Any] = self._schema()

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments to call the template with.

        A text that does not fit is read as JSON and tried again. What is missing keeps the function's default.

        Raises:
            BadParamsError: an argument is unknown (with close names), missing, or of the wrong type.
        """
        checked: dict[str, Any] = {}
        for name, value in given.items():
            parameter = self.parameters.get(name)
            if parameter is not None:
                try:
                    checked[name] = parameter.rule.check(value, name)
                except ValueError as error:
                    raise self._refusal(name, str(error)) from None
            elif self.open_ended and isinstance(name, str):
                checked[name] = value
            else:
                raise self._refusal(str(name), unknown_argument(str(name), self.parameters))
        if len(checked) < len(self.parameters):
            for name, parameter in self.parameters.items():
                if name not in checked and parameter.required:
                    raise self._refusal(name, f"missing argument {name!r} ({_said(parameter.rule.schema)})")
        return checked

    @property
    def all_optional(self) -> bool:
        """Whether the template makes a row without any argument."""
        return not any(parameter.required for parameter in self.parameters.values())

    def _refusal(self, field: str, problem: str) -> BadParamsError:
        data = {"type": "BadParamsError", "phase": "start", "retryable": False, "field": field}
        return BadParamsError(BAD_PARAMS, f"{self._where}: {problem}", data)

    def _schema(self) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        for parameter in self.parameters.values():
            entry = dict(parameter.rule.schema)
            if not parameter.required:
                entry["default"] = _default(parameter.default)
            entry.setdefault("title", parameter.name.replace("_", " ").title())
            # Keys in the order in which pydantic writes them, so that either side's manifest reads alike.
            properties[parameter.name] = dict(sorted(entry.items()))
        schema: dict[str, Any] = {"properties": properties, "type": "object"}
        required = [p.name for p in self.parameters.values() if p.required]
        if required:
            schema["required"] = required
        schema["additionalProperties"] = self.open_ended
        if self._definitions:
            schema["$defs"] = self._definitions
        return schema


def close_names(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)`, or nothing where nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def unknown_argument(name: str, known: Mapping[str, Any]) -> str:
    """Say that no argument is called so, with close names and all there are."""
    listed = ", ".join(known) or "none"
    return f"unknown argument {name!r}{close_names(name, known)}; known: {listed}"


def _said(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type") or "/".join(
        str(option.get("type", "?")) for option in schema.get("anyOf", ()) if isinstance(option, Mapping)
    )
    return str(kind or "any value")


def _default(value: Any) -> Any:
    from hud.environment.payload import NotJSONError, to_json

    try:
        return to_json(value)
    except NotJSONError:
        return repr(value)


def _resolved(function: Callable[..., Any], named: list[inspect.Parameter], where: str) -> dict[str, Any]:
    """Return each parameter's annotation, text evaluated; one without annotation takes anything."""
    out: dict[str, Any] = {}
    inner = inspect.unwrap(function)
    for parameter in named:
        annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            out[parameter.name] = Any
            continue
        while isinstance(annotation, str):  # deferred, and quoted on top of it
            annotation = _evaluated(annotation, inner, parameter.name, where)
        out[parameter.name] = annotation
    return out


def _evaluated(text: str, function: Callable[..., Any], name: str, where: str) -> Any:
    names = dict(getattr(function, "__globals__", {}))
    closure = getattr(function, "__closure__", None) or ()
    free = getattr(getattr(function, "__code__", None), "co_freevars", ())
    for key, cell in zip(free, closure, strict=False):
        try:
            names[key] = cell.cell_contents
        except ValueError:
            continue  # not bound yet
    try:
        return eval(text, names)  # noqa: S307 - the author's own annotation, as typing.get_type_hints does
    except Exception as error:  # noqa: BLE001 - the author's annotation may raise anything
        raise AuthoringError(
            f"{where}: the annotation {text!r} of argument {name!r} cannot be resolved ({error}); import its "
            "names at run time, not under TYPE_CHECKING"
        ) from None
