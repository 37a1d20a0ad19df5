"""What a job was asked to do, checked before anything is placed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hud.errors import ConfigError, TasksetError
from hud.eval.budget import Budget
from hud.eval.deadlines import SLACK_S, Deadlines
from hud.eval.limits import Limits
from hud.eval.retries import RETRIES, Retries
from hud.types.task import Task

if TYPE_CHECKING:
    from hud.eval.phases import AgentCall

ROW_KEYS = ("timeout_seconds", "max_steps")
"""Keys of a row's `agent_config` that hold for any agent; the others belong to the agent's own configuration."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Options:
    """How rollouts are run.

    `rollout_timeout` bounds each from queue to teardown, in seconds; `budget` is what the whole job may spend.
    `keep_state` keeps what agents leave in their workspaces, so that it can be graded again; `verdict_cache` answers
    a grader's question from the job's file where it was asked before.
    """

    deadlines: Deadlines = field(default_factory=Deadlines)
    limits: Limits = field(default_factory=Limits)
    retries: int | Retries = RETRIES
    rollout_timeout: float | None = None
    budget: Budget | None = None
    keep_state: bool = True
    verdict_cache: bool = True

    def __post_init__(self) -> None:
        Retries.of(self.retries)
        if self.rollout_timeout is not None and not self.rollout_timeout > 0:
            raise ConfigError(f"rollout_timeout={self.rollout_timeout!r} must be seconds above 0")

    @property
    def retry(self) -> Retries:
        """How often what failed is tried again, by class."""
        return Retries.of(self.retries)

    @property
    def seconds(self) -> float | None:
        """The tighter of `rollout_timeout` and `limits.seconds`."""
        given = [s for s in (self.rollout_timeout, self.limits.seconds) if s is not None]
        return min(given) if given else None

    @property
    def hard_bound_s(self) -> float:
        """Seconds after which a rollout that is still not over is abandoned."""
        total = self.deadlines.total(self.retry.total + 1)
        return total if self.seconds is None else min(total, self.seconds + self.deadlines.release + SLACK_S)


def check_row(task: Task, agent: AgentCall, options: Options) -> None:
    """Hold a row's times and its `agent_config` to what can work.

    Raises:
        ConfigError: the agent's time is not below the row's `run_timeout_s`, a time of the row is not below
            the rollout's, or `agent_config` has a key the agent does not know.
    """
    if task.verifier is not None and task.verifier.verifier is not None:
        raise TasksetError(
            f"task {task.slug!r}: its verifier {task.verifier.slug!r} has a verifier of its own"
        )
    if not task.agent_config and task.runtime_config is None and not _has_times(agent):
        return
    seconds = act_seconds(task, agent, options)
    limits = task.runtime_config.limits if task.runtime_config is not None else None
    run_timeout = limits.run_timeout_s if limits is not None else None
    own = _own_seconds(task, agent)
    if own is not None and run_timeout is not None and own >= run_timeout:
        raise ConfigError(
            f"task {task.slug!r}: the agent's timeout_seconds={own:g} must be below run_timeout_s={run_timeout:g}"
        )
    bound = options.seconds
    if bound is not None:
        startup = limits.startup_timeout_s if limits is not None else None
        for name, value in (
            ("the agent's timeout_seconds", own),
            ("startup_timeout_s", startup),
            ("run_timeout_s", run_timeout),
        ):
            if value is not None and value >= bound:
                raise ConfigError(
                    f"task {task.slug!r}: {name}={value:g} must be below the rollout's {bound:g} seconds"
                )
    if not seconds > 0:
        raise ConfigError(f"task {task.slug!r}: timeout_seconds={seconds!r} must be seconds above 0")
    max_steps = (task.agent_config or {}).get("max_steps")
    if max_steps is not None and (isinstance(max_steps, bool) or not isinstance(max_steps, int)):
        raise ConfigError(f"task {task.slug!r}: agent_config max_steps={max_steps!r} must be a whole number")
    agent_for_row(agent, task)


def act_seconds(task: Task, agent: AgentCall, options: Options) -> float:
    """Return the deadline of the act phase: the row's, else the agent's own, else the default."""
    own = _own_seconds(task, agent)
    return options.deadlines.act if own is None else own


def _has_times(agent: Any) -> bool:
    """Tell whether the agent may have times of its own; one without settings is not asked to make them."""
    if hasattr(agent, "timeout_seconds"):
        return agent.timeout_seconds is not None
    return getattr(agent, "config", None) is not None


def _own_seconds(task: Task, agent: Any) -> float | None:
    value = (task.agent_config or {}).get("timeout_seconds")
    if value is None:
        holder = agent if hasattr(agent, "timeout_seconds") else getattr(agent, "config", None)
        value = getattr(holder, "timeout_seconds", None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"task {task.slug!r}: timeout_seconds={value!r} must be a number of seconds")
    return float(value)


def agent_for_row(agent: AgentCall, task: Task) -> AgentCall:
    """Return the agent with the row's `agent_config` applied; itself where there is none."""
    overrides = task.agent_config
    if not overrides:
        return agent
    configured = getattr(agent, "with_config", None)
    if configured is not None:
        try:
            made: AgentCall = configured(overrides)
        except ValueError as exc:
            raise ConfigError(f"task {task.slug!r}: agent_config {overrides!r}: {exc}") from exc
        return made
    unknown = sorted(set(overrides) - set(ROW_KEYS))
    if unknown:
        raise ConfigError(
            f"task {task.slug!r}: agent_config has {unknown}, which {agent_name(agent)} does not know; "
            f"any agent knows {list(ROW_KEYS)}"
        )
    return agent


def agent_name(agent: Any) -> str:
    """Return how an agent is called in records: its `name`, its model, else its class or function."""
    name = getattr(agent, "name", None)
    if isinstance(name, str) and name:
        return name
    model = getattr(getattr(agent, "config", None), "model", None)
    if isinstance(model, str) and model and model != "unknown":
        return model
    named = getattr(agent, "__qualname__", None)
    return str(named) if named else type(agent).__name__
