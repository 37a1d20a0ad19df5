"""Typed answers and hints on a template's arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from hud.values import Value

T = TypeVar("T")


@dataclass(slots=True)
class Answer(Value, Generic[T]):
    """What the agent answered: `content` parsed as `returns=` says, `raw` the text it came from.

    Where the text does not parse, `content` is the text itself.
    """

    content: T
    raw: str = ""


@dataclass(slots=True, frozen=True)
class ArgumentHint:
    """Adds `x-hud-hint` to an argument's JSON Schema, so that an editor knows what the argument is for."""

    kind: str

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> Any:
        schema = handler(core_schema)
        schema["x-hud-hint"] = self.kind
        return schema


@dataclass(slots=True, frozen=True)
class DataFileRef(Value):
    """A file kept with the task's data."""

    file_id: str
    path: str | None = None


PromptArg = Annotated[str, ArgumentHint("prompt")]
DataFileArg = Annotated[T, ArgumentHint("data-file")]
DataFilesArg = Annotated[list[T], ArgumentHint("data-files")]
GradingArg = Annotated[list[T], ArgumentHint("grading")]
