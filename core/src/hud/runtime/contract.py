"""What a runtime is: a callable that places an environment and gives back an address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hud.errors import UnsupportedConfigError

if TYPE_CHECKING:
    from hud.eval.run import Run
    from hud.types import RuntimeConfig, Task


class Params(dict[str, Any]):
    """Parameters of a placement. Secrets (`token`, keys, the service itself) stay out of `repr` and pickles."""

    SECRET = frozenset({"token", "service", "client_key", "password", "auth_token"})

    def __repr__(self) -> str:
        return repr({k: "…" if k in self.SECRET else v for k, v in self.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return Params, ({k: v for k, v in self.items() if k not in self.SECRET},)


@dataclass(slots=True, frozen=True)
class Runtime:
    """An address that serves an environment, and itself a provider that owns nothing.

    `params` the client knows: `token`, `ready_timeout` (seconds), `ca` and `pin` for tls, `service` for an
    environment served in this process (url `local:`), `process` for a placement whose death can be seen.
    """

    url: str
    params: Mapping[str, Any] = field(default_factory=Params)
    config: RuntimeConfig | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.params, Params):
            object.__setattr__(self, "params", Params(self.params))

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:  # noqa: ARG002 - every row, the same address
        yield self


@runtime_checkable
class Provider(Protocol):
    """Places the environment of one row. The context's end releases everything it created.

    Cancelling is safe at any await. Raises `RuntimeStartError` when the environment never became ready, with its
    last output lines, and `UnsupportedConfigError` before anything is created.
    """

    def __call__(self, task: Task) -> AbstractAsyncContextManager[Runtime]:
        """Place `task`'s environment."""
        ...


@runtime_checkable
class Delegate(Protocol):
    """A placement that drives the whole rollout elsewhere."""

    async def run(self, task: Task, agent: Any, **options: Any) -> Run:
        """Run `task` with `agent` and return the finished run."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A provider with long work to do before a row's first rollout: building an image, say.

    Asked for each row, outside of the deadline of placing; what was done before is not done again. A provider that
    is not asked does it when it places.
    """

    async def prepare(self, task: Task) -> None:
        """Do it; raises what placing would raise."""
        ...


@runtime_checkable
class Watched(Protocol):
    """`Runtime.params["process"]` of a placement whose death is seen at once."""

    async def died(self) -> str:
        """Return, once the placement has ended unasked, how: exit status or signal, and its last output lines."""
        ...


@dataclass(slots=True, frozen=True)
class Features:
    """What a runtime can give. Asking for more fails before anything is created, naming runtimes that can."""

    image: bool = False
    compose: bool = False
    cpu: bool = False
    memory: bool = False
    storage: bool = False
    gpu: bool = False
    gpu_choice: bool = False
    tpu: bool = False
    os: bool = False
    startup_timeout: bool = True
    run_timeout: bool = False
    remote: bool = False
    """Runs on another machine: needs a token and TLS, has a price."""
    isolated: bool = True
    """Each rollout has a process (or more) of its own."""
    verifier: bool = True

    @classmethod
    def from_mapping(cls, declared: Mapping[str, Any]) -> Features:
        """Read the features of a declaration; an unknown one raises `ValueError` that names it."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(declared) - known)
        if unknown:
            raise ValueError(f"unknown runtime features {unknown}; known: {sorted(known)}")
        return cls(**{key: bool(value) for key, value in declared.items()})

    def missing(self, config: RuntimeConfig | None) -> list[str]:
        """Return the parts of `config` this runtime cannot give, named as the user wrote them."""
        if config is None:
            return []
        wanted: dict[str, object] = {"image": config.image, "compose": config.compose}
        if (r := config.resources) is not None:
            wanted |= {
                "resources.cpu": r.cpu,
                "resources.memory_mb": r.memory_mb,
                "resources.storage_mb": r.storage_mb,
                "resources.gpu": r.gpu,
                "resources.tpu": r.tpu,
                "resources.os": r.os,
            }
        if (limits := config.limits) is not None:
            wanted |= {
                "limits.startup_timeout_s": limits.startup_timeout_s,
                "limits.run_timeout_s": limits.run_timeout_s,
            }
        return [
            part
            for part, value in wanted.items()
            if value is not None and not getattr(self, _FEATURE_OF[part])
        ]

    def require(self, config: RuntimeConfig | None, *, runtime: str, able: list[str] | None = None) -> None:
        """Raise `UnsupportedConfigError` unless this runtime can give all of `config`."""
        missing = self.missing(config)
        if not missing:
            return
        parts = ", ".join(missing)
        elsewhere = f"use {' or '.join(able)}" if able else "no installed runtime can"
        raise UnsupportedConfigError(
            f"{runtime} cannot provide {parts}; {elsewhere}, or drop it from the task"
        )


_FEATURE_OF = {
    "image": "image",
    "compose": "compose",
    "resources.cpu": "cpu",
    "resources.memory_mb": "memory",
    "resources.storage_mb": "storage",
    "resources.gpu": "gpu",
    "resources.tpu": "tpu",
    "resources.os": "os",
    "limits.startup_timeout_s": "startup_timeout",
    "limits.run_timeout_s": "run_timeout",
}
