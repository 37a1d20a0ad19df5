"""What a sandbox may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hud.errors import ConfigError

KIB, MIB, GIB = 1024, 1024**2, 1024**3
_UNITS = {"k": KIB, "m": MIB, "g": GIB, "t": 1024**4}


@dataclass(slots=True, frozen=True, kw_only=True)
class Limits:
    """Bounds of one workspace; sizes in bytes, or text such as `"512m"` when made with `of`.

    `memory`, `processes`, `disk` (the workspace's folder and home), `tmp` (`/tmp`, and home as much; at most a
    quarter of memory); `cpus` None is all.
    `seconds` ends any one command, whoever runs it; None leaves that to the client, which has 120 s.
    `output_bytes` of one command are kept by clients and graders, the middle is dropped.
    """

    memory: int = 2 * GIB
    processes: int = 512
    disk: int = 4 * GIB
    tmp: int = 512 * MIB
    cpus: float | None = None
    seconds: float | None = None
    output_bytes: int = 16 * MIB
    open_files: int = 4096

    @property
    def memory_folders(self) -> tuple[int, int, int]:
        """Sizes of /tmp, home and /dev/shm: files there are memory, and must leave most of it to programs."""
        return (
            min(self.tmp, self.memory // 4),
            min(self.tmp, self.memory // 4),
            min(self.tmp, self.memory // 8),
        )

    @classmethod
    def of(cls, given: Limits | Mapping[str, Any] | None) -> Limits:
        """Read what an author wrote; `cpu` is `cpus`.

        Raises:
            ConfigError: a name is unknown or a value is no size; names both.
        """
        if given is None:
            return cls()
        if isinstance(given, Limits):
            return given
        known = {f.name for f in fields(cls)}
        out: dict[str, Any] = {}
        for written, value in given.items():
            name = "cpus" if written == "cpu" else written
            if name not in known:
                raise ConfigError(f"limits: unknown name {written!r}; known are {', '.join(sorted(known))}")
            out[name] = _number(name, value)
        return cls(**out)


def _number(name: str, value: Any) -> Any:
    if value is None and name in ("cpus", "seconds"):
        return None
    if isinstance(value, str):
        text = value.strip().lower().removesuffix("b").removesuffix("i")
        unit = _UNITS.get(text[-1:], 1)
        try:
            value = float(text[:-1] if text[-1:] in _UNITS else text) * unit
        except ValueError:
            raise ConfigError(
                f"limits: {name}={value!r} is no size; write a number, or text as '512m'"
            ) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"limits: {name}={value!r} must be a number above 0")
    return float(value) if name in ("cpus", "seconds") else int(value)
