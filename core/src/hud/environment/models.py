"""What needs pydantic: annotations beyond the plain ones, and typed answers. Imports it on first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.environment.annotations import Check, Rule
from hud.errors import AuthoringError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_REF = "#/$defs/{model}"


def rules_by_pydantic(annotations: Mapping[str, Any], where: str) -> tuple[dict[str, Rule], dict[str, Any]]:
    """Return a rule for each annotation, and the definitions their schemas refer to (`#/$defs/...`).

    Raises:
        AuthoringError: pydantic cannot check an annotation, or it has no JSON Schema.
    """
    from pydantic import TypeAdapter

    adapters = {
        name: adapter_for(annotation, f"{where}: argument {name!r}")
        for name, annotation in annotations.items()
    }
    try:
        schemas, shared = TypeAdapter.json_schemas(
            [(name, "validation", adapter) for name, adapter in adapters.items()], ref_template=_REF
        )
    except Exception as error:  # noqa: BLE001 - pydantic's and the author's hooks may raise anything
        raise AuthoringError(f"{where}: an argument has no JSON Schema: {_first_line(error)}") from None
    rules = {
        name: Rule(dict(schemas[name, "validation"]), _checked_by(adapter))
        for name, adapter in adapters.items()
    }
    return rules, dict(shared.get("$defs", {}))


def adapter_for(annotation: Any, where: str) -> TypeAdapter[Any]:
    """Return pydantic's adapter for `annotation`; `AuthoringError` names `where` when it cannot be made."""
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(annotation)
    except Exception as error:  # noqa: BLE001 - pydantic's and the author's hooks may raise anything
        raise AuthoringError(f"{where}: pydantic cannot check {annotation!r}: {_first_line(error)}") from None


def schema_of(annotation: Any, where: str) -> dict[str, Any]:
    """Return the JSON Schema of a template's `input` or `returns`; a mapping is one already."""
    if isinstance(annotation, Mapping):
        return dict(annotation)
    try:
        return dict(adapter_for(annotation, where).json_schema())
    except AuthoringError:
        raise
    except Exception as error:  # noqa: BLE001 - pydantic's and the author's hooks may raise anything
        raise AuthoringError(f"{where}: {annotation!r} has no JSON Schema: {_first_line(error)}") from None


def _checked_by(adapter: TypeAdapter[Any]) -> Check:
    from pydantic import ValidationError

    def check(value: Any, path: str) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(_complaint(error, path)) from None

    return check


def _complaint(error: Any, path: str) -> str:
    """Say pydantic's complaints in one line, each with its path within the arguments."""
    said = []
    for item in error.errors(include_url=False)[:3]:
        place = path + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in item["loc"])
        text = repr(item.get("input"))
        said.append(f"{place}: {item['msg']}, not {text if len(text) <= 80 else text[:77] + '...'}")
    more = error.error_count() - len(said)
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
