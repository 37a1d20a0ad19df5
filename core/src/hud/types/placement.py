"""What a row may ask of the place it runs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hud.values import Value


@dataclass(slots=True, frozen=True)
class RuntimeGPU(Value):
    """`type` is one name or a list of acceptable ones, best first; None takes any."""

    type: str | list[str] | None = None
    count: int = 1

    @property
    def acceptable_types(self) -> list[str]:
        """The names in order of preference; empty where any will do."""
        return [self.type] if isinstance(self.type, str) else list(self.type or [])


@dataclass(slots=True, frozen=True)
class RuntimeTPU(Value):
    """`topology` as the provider writes it."""

    type: str
    topology: str = "2x2"


@dataclass(slots=True, frozen=True)
class RuntimeResources(Value):
    """Cores, memory and storage in MiB, accelerators, operating system; None leaves the runtime's default."""

    cpu: float | None = None
    memory_mb: int | None = None
    storage_mb: int | None = None
    gpu: RuntimeGPU | None = None
    os: str | None = None
    tpu: RuntimeTPU | None = None

    def __post_init__(self) -> None:
        read_mappings(self, gpu=RuntimeGPU, tpu=RuntimeTPU)


@dataclass(slots=True, frozen=True)
class RuntimeLimits(Value):
    """Seconds to become ready, and seconds a placement may live."""

    startup_timeout_s: float | None = None
    run_timeout_s: float | None = None


@dataclass(slots=True, frozen=True)
class ComposeProject(Value):
    """A Compose file (a path, or its content as a mapping); service `main` serves the control channel."""

    document: Path | dict[str, Any]
    root: Path | None = None
    service_access: bool | None = None


@dataclass(slots=True, frozen=True)
class RuntimeConfig(Value):
    """What a row needs; `image` and `compose` exclude each other."""

    image: str | None = None
    compose: ComposeProject | None = None
    resources: RuntimeResources | None = None
    limits: RuntimeLimits | None = None

    def __post_init__(self) -> None:
        read_mappings(self, compose=ComposeProject, resources=RuntimeResources, limits=RuntimeLimits)
        if self.image is not None and self.compose is not None:
            raise ValueError(f"runtime_config has image={self.image!r} and compose; give one of them")

    def with_overrides(self, other: RuntimeConfig | None) -> Self:
        """Return this config with every part that `other` sets replaced by it."""
        if other is None:
            return self
        changes = {name: getattr(other, name) for name in ("image", "compose", "resources", "limits")}
        changes = {name: value for name, value in changes.items() if value is not None}
        if changes.get("image"):
            changes.setdefault("compose", None)
        elif changes.get("compose"):
            changes.setdefault("image", None)
        return self.model_copy(update=changes)


def read_mappings(value: Value, **kinds: type[Value]) -> None:
    """Make parts that were given as mappings what they describe."""
    for name, kind in kinds.items():
        part = getattr(value, name)
        if isinstance(part, Mapping):
            object.__setattr__(value, name, kind.model_validate(part))
