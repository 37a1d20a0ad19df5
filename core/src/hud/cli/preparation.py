"""From a request to what the engine takes: rows, an agent, a placement, options. Nothing is started here."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from hud.cli.eval_request import PHASE_NAMES
from hud.cli.patience import bounded_reading
from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.cli.eval_request import EvalRequest
    from hud.eval.taskset import Taskset
    from hud.settings.hudtoml import Project

URL_SCHEMES = ("tcp", "tls", "unix")
READ_S = 300.0
"""How long reading the source may take, unless the deadline of placing says otherwise."""


@dataclass(slots=True)
class Prepared:
    """A request whose source, agent and placement are loaded; `options` are the engine's."""

    request: EvalRequest
    taskset: Taskset
    agent: Any
    runtime: Any
    options: dict[str, Any]

    @property
    def rollouts(self) -> int | None:
        """How many there will be; None for an endless taskset."""
        if self.taskset.is_lazy:
            return None
        rows = len(self.taskset)
        limit = self.request.limit
        return (rows if limit is None else min(rows, limit)) * self.request.group


def prepare(request: EvalRequest) -> Prepared:
    """Load what `request` names.

    Raises:
        UsageError: the source, a row, the agent or an option cannot work.
        PluginError: a plugin that is needed is absent or broken.
    """
    from hud.plugins.hudfile import load_hudfile
    from hud.settings import project

    load_hudfile()
    if request.seed is not None:
        import random

        # Before the source is read, which may sample its rows.
        random.seed(request.seed)
    settings = project()
    with bounded_reading(request.source, _seconds(request, settings).get("place", READ_S)):
        taskset = rows_of(request)
    _begin_import(request, taskset, settings)
    return Prepared(
        request=request,
        taskset=taskset,
        agent=_agent(request, settings),
        runtime=_placement(request),
        options=_options(request, settings),
    )


def _begin_import(request: EvalRequest, taskset: Taskset, settings: Project) -> None:
    """Have the environment imported in its own process while this one still imports the engine."""
    if request.runtime not in (None, "local") or request.dry_run or request.debug or taskset.is_lazy:
        return
    from hud.runtime.early import begin_import

    begin_import(next(iter(taskset)), settings)


def rows_of(request: EvalRequest) -> Taskset:
    """Read the rows of the source and choose among them."""
    from hud.eval.taskset import Taskset

    if request.template is not None:
        return _one_row(request)
    taskset = Taskset.from_file(request.source)
    if request.task_ids:
        if taskset.is_lazy:
            raise UsageError(
                f"--task-ids chooses among rows that are known beforehand; {request.source} makes its rows while it "
                "runs: bound them with --limit N"
            )
        taskset = taskset.filter(request.task_ids)
    if not taskset:
        raise UsageError(f"{request.source} has no tasks")
    return taskset


def _one_row(request: EvalRequest) -> Taskset:
    """Make the row that --task and --args describe."""
    from hud.environment.loading import load_environment
    from hud.eval.taskset import Taskset

    env = load_environment(request.source)
    template = env.templates.get(request.template or "")
    if template is None:
        raise UsageError(
            f"environment {env.name!r} has no template {request.template!r}; it has {', '.join(env.templates)}"
        )
    try:
        row = template(**request.template_args)
    except TypeError as exc:
        raise UsageError(str(exc)) from exc
    return Taskset(env.name, [row], source=request.source)


def _agent(request: EvalRequest, project: Project) -> Any:
    from hud.agents.names import agent_named

    config = {**project.agents.get(request.agent, {}), **request.config}
    if request.model is not None:
        config["model"] = request.model
    if request.solutions is not None:
        if request.agent != "oracle":
            raise UsageError(f"--source names the oracle's solutions; the agent is {request.agent!r}")
        config["source"] = request.solutions
    if request.config_if_known:
        with suppress(UsageError):
            return agent_named(request.agent, **{**request.config_if_known, **config})
    try:
        return agent_named(request.agent, **config)
    except UsageError as exc:
        if request.agent in project.agents:
            exc.add_note(f"[agents.{request.agent}] of {project.path} has settings for it")
        raise


def _placement(request: EvalRequest) -> Any:
    runtime = runtime_of(request.runtime)
    if request.keep is None:
        return runtime
    from hud.cli.keeping import Keeping

    return Keeping(runtime, request.keep)


def runtime_of(text: str | None) -> Any:
    """Return what `--runtime` means: a name as it is, an address with its token apart.

    Raises:
        UsageError: the address cannot be read.
    """
    if text is None or urlsplit(text).scheme not in URL_SCHEMES:
        return text
    from hud.runtime.contract import Runtime
    from hud.wire.address import ControlUrl

    url, params = split_token(text)
    ControlUrl.parse(url)  # a mistyped one is told before anything starts
    return Runtime(url, params)


def split_token(url: str) -> tuple[str, dict[str, Any]]:
    """Return a url without its `?token=`, and the params the client takes; HUD_TOKEN stands in for it."""
    from hud.settings.variables import variable

    parts = urlsplit(url)
    token = parse_qs(parts.query).get("token", [variable("HUD_TOKEN")])[0]
    bare = parts._replace(query="").geturl()
    return bare, {"token": token} if token else {}


def _options(request: EvalRequest, project: Project) -> dict[str, Any]:
    from hud.eval.budget import Budget
    from hud.eval.deadlines import Deadlines
    from hud.eval.limits import Limits
    from hud.eval.retries import RETRIES

    own = project.limits
    limits = Limits(
        max_steps=request.max_steps or _whole(own.get("max_steps")),
        max_tokens=request.max_tokens or _whole(own.get("max_tokens")),
        max_cost_usd=own.get("max_cost_usd"),
        job_cost_usd=request.max_cost_usd,
    )
    retries = request.retries if request.retries is not None else _whole(own.get("retries"))
    notes: dict[str, Any] = {}
    if request.tags:
        notes["tags"] = list(request.tags)
    if request.seed is not None:
        notes["seed"] = request.seed
    return {
        "max_concurrent": request.max_concurrent
        or _whole(own.get("max_concurrent"))
        or _asked(request.agent),
        "limit": request.limit,
        "limits": limits,
        "budget": Budget.of(request.budget) or Budget.of(project.budget),
        "keep_state": request.keep_state,
        "verdict_cache": request.verdict_cache,
        "deadlines": Deadlines(**_seconds(request, project)),
        "rollout_timeout": request.timeout,
        "retries": {"infrastructure": RETRIES if retries is None else retries, **request.retry_on},
        "notes": notes,
    }


def _seconds(request: EvalRequest, project: Project) -> dict[str, float]:
    """Return the deadlines that were set, of phases by name."""
    own = project.limits
    return {phase: own[f"{phase}_s"] for phase in PHASE_NAMES if f"{phase}_s" in own} | dict(
        request.deadlines
    )


def _asked(agent: str) -> int | None:
    """Return how many rollouts a person does at once; None for agents that are none."""
    return 1 if agent == "human" else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
