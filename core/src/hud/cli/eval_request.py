"""What `hud eval` was asked to do, its words read but nothing loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hud.errors import UsageError

PHASE_NAMES = ("place", "connect", "start", "act", "grade", "release")
BOUNDED = (*PHASE_NAMES, "job")
"""What has a deadline: each phase of a rollout, and the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRequest:
    """The options of one `hud eval`, named as on the command line."""

    source: str
    agent: str
    model: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    config_if_known: Mapping[str, Any] = field(default_factory=dict)
    """Further configuration that an agent may do without: what --full wishes of a model."""
    task_ids: tuple[str, ...] = ()
    template: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    group: int = 1
    max_concurrent: int | None = None
    max_steps: int | None = None
    runtime: str | None = None
    retries: int | None = None
    retry_on: Mapping[str, int] = field(default_factory=dict)
    timeout: float | None = None
    deadlines: Mapping[str, float] = field(default_factory=dict)
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    budget: tuple[str, ...] = ()
    keep_state: bool = True
    verdict_cache: bool = True
    name: str | None = None
    tags: tuple[str, ...] = ()
    seed: int | None = None
    solutions: Path | None = None
    keep: Literal["failed", "all"] | None = None
    fail_under: float | None = None
    output: Literal["table", "json", "jsonl"] = "table"
    verbosity: int = 0
    dry_run: bool = False
    debug: bool = False
    resume: Path | None = None
    """The file of the job that goes on."""
    only: Literal["errors"] | None = None
    force: bool = False


def words(values: Iterable[str]) -> tuple[str, ...]:
    """Return the words of a repeatable option whose values may also hold several, split by commas."""
    return tuple(word for value in values for part in value.split(",") if (word := part.strip()))


def pairs(values: Iterable[str], option: str) -> dict[str, Any]:
    """Read `key=value` words; a value that is JSON (a number, true, a list) is read as such, else it is text."""
    out: dict[str, Any] = {}
    for word in values:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} {word!r}: write it as key=value")
        try:
            out[key.strip()] = json.loads(value)
        except ValueError:
            out[key.strip()] = value
    return out


def agent_config(values: Iterable[str], agent: str) -> dict[str, Any]:
    """Read `--config key=value` words; `agent.key=value` is accepted for the agent that runs."""
    out: dict[str, Any] = {}
    for key, value in pairs(values, "--config").items():
        owner, dot, rest = key.partition(".")
        if dot and owner in (agent, "agent"):
            out[rest] = value
        elif dot:
            raise UsageError(f"--config {key}={value}: the agent is {agent!r}, not {owner!r}")
        else:
            out[key] = value
    return out


def deadlines(values: Iterable[str]) -> dict[str, float]:
    """Read `--deadline phase=seconds` words."""
    out: dict[str, float] = {}
    for phase, seconds in pairs(values, "--deadline").items():
        if phase not in BOUNDED:
            raise UsageError(f"--deadline {phase}={seconds}: deadlines are of {', '.join(BOUNDED)}")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
            raise UsageError(f"--deadline {phase}={seconds}: give seconds above 0")
        out[phase] = float(seconds)
    return out


def retry_on(values: Iterable[str], default: int) -> dict[str, int]:
    """Read `--retry-on` words: classes of failures, each with how often (`agent=1`) or as often as `default`."""
    from hud.eval.retries import CLASSES

    found: dict[str, int] = {}
    for word in words(values):
        name, equals, count = word.partition("=")
        if name not in CLASSES or (equals and not count.isdecimal()):
            raise UsageError(
                f"--retry-on {word}: write CLASS or CLASS=COUNT; classes are {', '.join(CLASSES)}"
            )
        found[name] = int(count) if equals else default
    return found


def json_object(text: str | None, option: str) -> dict[str, Any]:
    """Read an option's JSON object; None is an empty one."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise UsageError(f"{option} {text!r} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise UsageError(f"{option} {text!r} must be a JSON object")
    return value
