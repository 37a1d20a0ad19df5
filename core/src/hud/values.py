"""Light values: slotted dataclasses that answer to pydantic's verbs.

Making one costs what a dataclass costs. Validation builds a pydantic `TypeAdapter` on its first use, so a
process that only makes and dumps values never imports pydantic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from pydantic import TypeAdapter


class Value:
    """Base of every value that travels or is kept: `@dataclass(slots=True) class Grade(Value)`.

    A field whose metadata has `{"private": True}` is neither dumped nor validated. Unknown fields are
    rejected by name in `model_validate`.
    """

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "arbitrary_types_allowed": True}
    aliases: ClassVar[Mapping[str, str]] = {}
    """Other names `model_validate` accepts, as alias -> field."""

    def model_dump(
        self,
        *,
        mode: str = "python",
        include: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        exclude_none: bool = False,
        exclude_defaults: bool = False,
        by_alias: bool = False,  # noqa: ARG002 - accepted for code written against pydantic
    ) -> dict[str, Any]:
        """Return a plain dict; `mode="json"` also turns paths, enums, sets and tuples into JSON's types."""
        cls: Any = type(self)
        wanted = None if include is None else frozenset(include)
        unwanted = frozenset(exclude or ())
        as_json = mode == "json"
        out: dict[str, Any] = {}
        for name in _public_fields(cls):
            if name in unwanted or (wanted is not None and name not in wanted):
                continue
            value = getattr(self, name)
            if exclude_none and value is None:
                continue
            if exclude_defaults and value == _defaults(cls).get(name, _MISSING):
                continue
            out[name] = _plain(value, as_json, exclude_none)
        return out

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """Return JSON text, compact unless `indent` is given; a NaN or infinity raises `ValueError`."""
        separators = (",", ":") if indent is None else None
        return json.dumps(
            self.model_dump(mode="json", **options),
            indent=indent,
            separators=separators,
            ensure_ascii=False,
            allow_nan=False,
        )

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Make one from a mapping or return the instance given.

        Raises:
            pydantic.ValidationError: a field is unknown, missing or of the wrong type (a `ValueError`).
        """
        if isinstance(obj, cls):
            return obj
        if cls.aliases and isinstance(obj, Mapping):
            obj = {cls.aliases.get(key, key): value for key, value in obj.items()}
        made: Any = cls
        value: Self = _adapter(made).validate_python(obj)
        return value

    @classmethod
    def model_validate_json(cls, text: str | bytes) -> Self:
        """Make one from JSON text; see `model_validate`."""
        return cls.model_validate(json.loads(text))

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema that `model_validate` checks against."""
        made: Any = cls
        return _adapter(made).json_schema()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with the fields of `update` replaced (unchecked, as pydantic does)."""
        from copy import deepcopy

        copied: Any = deepcopy(self) if deep else self
        made: Self = replace(copied, **(update or {}))
        return made


_MISSING = object()
_ATOMS = (str, int, float, bool, type(None))


@cache
def _public_fields(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if not f.metadata.get("private"))


@cache
def _defaults(cls: Any) -> dict[str, Any]:
    from dataclasses import MISSING

    out: dict[str, Any] = {}
    for f in fields(cls):
        if f.default is not MISSING:
            out[f.name] = f.default
        elif f.default_factory is not MISSING:
            out[f.name] = f.default_factory()
    return out


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def shallow(value: Value) -> dict[str, Any]:
    """Return a value's public fields with what they hold left as it is."""
    made: Any = type(value)
    return {name: getattr(value, name) for name in _public_fields(made)}


def plain(value: Any) -> Any:
    """Return `value` as JSON's types: values, pydantic models, paths, enums, sets and tuples included."""
    return _plain(value, as_json=True, exclude_none=False)


def _plain(value: Any, as_json: bool, exclude_none: bool) -> Any:
    if type(value) in _ATOMS:
        return value
    if isinstance(value, Value):
        return value.model_dump(mode="json" if as_json else "python", exclude_none=exclude_none)
    if isinstance(value, Mapping):
        return {key: _plain(item, as_json, exclude_none) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, as_json, exclude_none) for item in value]
    if isinstance(value, tuple):
        items = [_plain(item, as_json, exclude_none) for item in value]
        return items if as_json else tuple(items)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json" if as_json else "python", exclude_none=exclude_none)
    if not as_json:
        return value
    if isinstance(value, (set, frozenset)):
        return [_plain(item, as_json, exclude_none) for item in sorted(value, key=repr)]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, bytes):
        import base64

        return base64.b64encode(value).decode()
    return value
