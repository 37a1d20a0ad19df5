"""What every agent can be configured with."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


class AgentConfig(BaseModel):
    """The base of an agent's configuration; an unknown key is an error.

    `timeout_seconds` bounds the act phase; `model` also answers to `checkpoint_name`; `gateway` asks for the
    platform's inference gateway instead of the provider itself.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", populate_by_name=True, validate_assignment=True
    )

    timeout_seconds: float | None = Field(default=None, gt=0)
    model_name: str = "Agent"
    model: str = Field(default="unknown", validation_alias=AliasChoices("model", "checkpoint_name"))
    gateway: bool = False
