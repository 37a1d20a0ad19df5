"""The base of agents that have a configuration. An agent need not be one: any async callable serves."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self

from hud.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from hud.agents.types import AgentConfig
    from hud.eval.run import Run

    ConfigT = TypeVar("ConfigT", bound="AgentConfig", default="AgentConfig")
else:
    from typing import TypeVar

    ConfigT = TypeVar("ConfigT")


class Agent(ABC, Generic[ConfigT]):
    """An agent with a configuration: `await agent(run)` does the task of `run`.

    A subclass names its configuration's class as `config_cls` and writes `__call__`: it reads `run.prompt_messages`,
    opens what it needs with `await run.client.open(...)`, records steps with `run.record(...)`, and returns its
    answer or sets `run.trace.content`. One instance serves many rollouts at once, so it keeps nothing of a rollout.
    """

    config_cls: ClassVar[type[Any] | None] = None
    """The pydantic class of `config`; None takes `AgentConfig`."""

    name: ClassVar[str] = ""
    """How records call the agent where the model does not say it better."""

    def __init__(self, config: ConfigT | Mapping[str, Any] | None = None) -> None:
        self._given = config
        self._config: ConfigT | None = None

    @property
    def config(self) -> ConfigT:
        """The configuration, checked on first use.

        Raises:
            ConfigError: it has an unknown key or a wrong value.
        """
        if self._config is None:
            self._config = self._validated(self._given or {})
        return self._config

    @config.setter
    def config(self, config: ConfigT | Mapping[str, Any]) -> None:
        self._config = self._validated(config)

    @abstractmethod
    async def __call__(self, run: Run) -> Any:
        """Do the task of `run`; return the answer, or None where `run.trace.content` has it."""

    def with_config(self, overrides: Mapping[str, Any]) -> Self:
        """Return a copy with `overrides` in place of what the configuration says; the original stays as it is.

        Raises:
            ConfigError: an unknown key or a wrong value; lists the known keys.
        """
        made = copy.copy(self)
        made._given = None
        made._config = self._validated({**self._set_fields(), **overrides})
        return made

    def dump(self) -> dict[str, Any]:
        """Return what `load` makes an equal agent from: JSON's types, secrets and clients left out."""
        dumped: dict[str, Any] = self.config.model_dump(mode="json")
        return dumped

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Self:
        """Make an agent from what `dump` returned."""
        return cls(data)

    def _set_fields(self) -> dict[str, Any]:
        config = self.config
        return {name: getattr(config, name) for name in config.model_fields_set}

    @classmethod
    def _validated(cls, config: Any) -> ConfigT:
        from pydantic import ValidationError

        wanted: Any = cls.config_cls
        if wanted is None:
            from hud.agents.types import AgentConfig as wanted  # noqa: N813 - the default of config_cls
        if isinstance(config, wanted):
            checked: ConfigT = config
            return checked
        try:
            made: ConfigT = wanted.model_validate(dict(config))
        except ValidationError as exc:
            raise ConfigError(f"{cls.__name__}: {_complaints(exc, wanted)}") from exc
        return made


def _complaints(exc: Any, config_cls: Any) -> str:
    found = []
    for error in exc.errors():
        key = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            found.append(f"unknown key {key!r} (known: {', '.join(config_cls.model_fields)})")
        else:
            found.append(f"{key}={error.get('input')!r}: {error['msg']}")
    return "; ".join(found)


class PlainAgent(Agent):
    """An agent without settings of its own: it knows `timeout_seconds` and `max_steps`, which the engine holds."""

    ENGINE_KEYS: ClassVar[tuple[str, ...]] = ("timeout_seconds", "max_steps")
    timeout_seconds: float | None = None
    """Read by the engine before `config`, so that an agent without settings costs no pydantic."""

    def with_config(self, overrides: Mapping[str, Any]) -> Self:
        """Return the agent itself where `overrides` has only keys the engine holds."""
        unknown = sorted(set(overrides) - set(self.ENGINE_KEYS))
        if unknown:
            raise ConfigError(
                f"{type(self).__name__} does not know {unknown}; it knows {list(self.ENGINE_KEYS)}"
            )
        return self
