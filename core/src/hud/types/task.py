"""A row of a taskset: which template of which environment, with which arguments."""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hud.errors import TasksetError
from hud.types.placement import RuntimeConfig, read_mappings
from hud.values import Value, plain

if TYPE_CHECKING:
    from hud.eval.job import Job


@dataclass(slots=True)
class Task(Value):
    """One concrete task. Portable: everything but `source` travels as JSON.

    `slug` names the row within a taskset; by default it is the template's id, with a digest of the arguments
    when there are any. `agent_config` overrides the agent's configuration for this row (`max_steps`,
    `timeout_seconds`, ...). `verifier` grades in another environment. It and `runtime_config` may be given as mappings.
    """

    env: str
    id: str
    args: dict[str, Any] = field(default_factory=dict)
    slug: str = ""
    validation: list[dict[str, Any]] | None = None
    agent_config: dict[str, Any] | None = None
    columns: dict[str, Any] | None = None
    runtime_config: RuntimeConfig | None = None
    verifier: Task | None = None
    source: Any = field(default=None, repr=False, compare=False, metadata={"private": True})
    """Where the row was declared: a live `Environment`, or a path; None for a row read from data."""

    def __post_init__(self) -> None:
        read_mappings(self, runtime_config=RuntimeConfig, verifier=Task)
        if not self.slug:
            self.slug = default_slug(self.id, self.args)
        if self.verifier is not None and self.verifier.verifier is not None:
            raise TasksetError(f"task {self.slug!r}: a verifier cannot have a verifier of its own")

    @property
    def shares_verifier_runtime(self) -> bool:
        """Whether the verifier can be graded over the same connection."""
        return (
            self.verifier is not None
            and self.verifier.env == self.env
            and self.verifier.runtime_config is None
        )

    async def run(self, agent: Any, **options: Any) -> Job:
        """Run this one row; see `hud.eval.Taskset.run` for the options."""
        # The engine lies above this value; it is found by name so that a row stays a plain value.
        taskset = importlib.import_module("hud.eval.taskset")
        job: Job = await taskset.Taskset(self.slug, [self]).run(agent, **options)
        return job


def default_slug(template_id: str, args: dict[str, Any]) -> str:
    """Return `id`, or `id-` and the first 8 hex digits of the arguments' SHA-1 (sorted, compact JSON)."""
    if not args:
        return template_id
    text = json.dumps(plain(args), sort_keys=True, separators=(",", ":"), default=str)
    return f"{template_id}-{hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]}"
