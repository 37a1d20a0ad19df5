"""`hud eval`: the command's options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hud.cli import eval_request
from hud.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from hud.cli.eval_config import FileOptions

FULL_STEPS = 100


class ConfiguredCommand(click.Command):
    """A command whose defaults come from the folder's configuration files."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the files first, except while a shell completes."""
        if extra.get("resilient_parsing"):
            return super().make_context(info_name, args, parent, **extra)
        from click.core import ParameterSource

        from hud.cli import eval_config

        files = eval_config.read(Path.cwd())
        extra["default_map"] = {name: value for name, value in files.options.items() if name != "deadlines"}
        extra["obj"] = files
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.BadParameter as exc:
            name = "" if exc.param is None else exc.param.name or ""
            if exc.ctx is not None and exc.ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP:
                raise ConfigError(f"{files.places[name]}: {exc.format_message()}") from exc
            raise


def _complete_agent(
    ctx: click.Context,  # noqa: ARG001 - click's signature
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[str]:
    from hud.cli.completions import agents

    return agents(incomplete)


def _complete_task_id(
    ctx: click.Context,
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[str]:
    from hud.cli.completions import slugs, typed_source

    return slugs(ctx.params.get("source") or typed_source(), incomplete)


def _complete_runtime(
    ctx: click.Context,  # noqa: ARG001
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[str]:
    from hud.cli.completions import runtimes

    return runtimes(incomplete)


def _complete_job(
    ctx: click.Context,  # noqa: ARG001
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[str]:
    from hud.cli.completions import jobs

    return jobs(incomplete)


def _number(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and value != value:
        raise click.BadParameter("nan is no bound", ctx=ctx, param=param)
    return value


@click.command("eval", cls=ConfiguredCommand)
@click.argument("source", required=False, type=click.Path())
@click.argument("agent", required=False, shell_complete=_complete_agent)
@click.option("--model", "-m", help="Model of the agent, where AGENT names a kind.")
@click.option("--config", "-c", multiple=True, metavar="K=V", help="Configuration of the agent; repeatable.")
@click.option(
    "--task-ids",
    multiple=True,
    shell_complete=_complete_task_id,
    help="Rows to run: slugs, template ids, 0-based indices, or patterns such as 'fix-*'; repeatable, by commas.",
)
@click.option("--task", "template", help="Run one row made of this template; with --args.")
@click.option("--args", "-a", "template_args", metavar="JSON", help="Arguments of --task.")
@click.option("--limit", type=click.IntRange(min=1), help="Run at most this many rows.")
@click.option("--all", "run_all", is_flag=True, help="Run all rows; this is the default.")
@click.option("--full", is_flag=True, help="The same as --all --auto-respond --max-steps 100.")
@click.option(
    "--group",
    "--group-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Attempts at each row.",
)
@click.option(
    "--max-concurrent", type=click.IntRange(min=1), help="Rollouts in flight; by default what fits."
)
@click.option("--max-steps", type=click.IntRange(min=1), help="Turns an agent may take.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Tokens one rollout may use.")
@click.option(
    "--max-cost", type=click.FloatRange(min=0, min_open=True), help="US dollars the whole job may cost."
)
@click.option(
    "--budget",
    multiple=True,
    metavar="AMOUNT",
    help="What the whole job may spend: 25usd, '2.5m tokens', '3600 sandbox-seconds'; repeatable, by commas.",
)
@click.option(
    "--runtime",
    shell_complete=_complete_runtime,
    help="Where environments run: local, subprocess, a plugin's name, or a url (tcp://...).",
)
@click.option("--remote", is_flag=True, hidden=True, help="The same as --runtime hosted.")
@click.option(
    "--retries", type=click.IntRange(min=0), help="Fresh placements after an infrastructure failure."
)
@click.option(
    "--retry-on",
    multiple=True,
    metavar="CLASS[=N],...",
    help="Try again what failed so: infrastructure, agent, task, limit; N times, by default --retries.",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds a whole rollout may take."
)
@click.option(
    "--deadline",
    "deadline",
    multiple=True,
    metavar="PHASE=S",
    help="Seconds of a phase (place, connect, start, act, grade, release) or of the whole job; repeatable.",
)
@click.option(
    "--auto-respond", is_flag=True, help="Let a model tell an agent to go on where it stops too early."
)
@click.option("--gateway", "-g", is_flag=True, help="Reach the model through the HUD gateway.")
@click.option("--name", help="Name of the job.")
@click.option("--tag", "tags", multiple=True, help="Tag of the job; repeatable.")
@click.option("--seed", type=int, help="Seeds `random` before the source is read; kept with the job.")
@click.option(
    "--source",
    "solutions",
    type=click.Path(exists=True, path_type=Path),
    help="Where the oracle finds reference solutions, when not beside the tasks.",
)
@click.option(
    "--keep", type=click.Choice(["failed", "all"]), help="Keep what environments wrote, and print where."
)
@click.option(
    "--state/--no-state",
    "keep_state",
    default=True,
    help="Keep what agents leave in their workspaces, for hud regrade; on by default.",
)
@click.option(
    "--verdict-cache/--no-verdict-cache",
    "verdict_cache",
    default=True,
    help="Answer graders' questions to models from the job's file where they were asked before; on by default.",
)
@click.option(
    "--fail-under",
    type=click.FloatRange(max=1),
    callback=_number,
    help="End with 1 when the mean reward is lower; at most 1.",
)
@click.option("--dry-run", is_flag=True, help="Print rows, placements and an estimate; run nothing.")
@click.option(
    "--debug", is_flag=True, help="One rollout in this process, with this terminal: breakpoint() works."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("--jsonl", "as_jsonl", is_flag=True, help="Print a JSON line for each rollout as it ends.")
@click.option(
    "--resume",
    metavar="JOB",
    shell_complete=_complete_job,
    help="Go on with a job (its id, the beginning of it, or its file): what is finished is not run again.",
)
@click.option(
    "--only", type=click.Choice(["errors"]), help="With --resume: run again what failed, and nothing else."
)
@click.option(
    "--detach",
    is_flag=True,
    help="Run it in a process of its own, which outlives this terminal; prints the job's id.",
)
@click.option("--force", is_flag=True, help="With --resume: go on although the source or its rows changed.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
@click.option(
    "--verbose", "-v", count=True, help="A line for each rollout; -vv also what environments print."
)
@click.option("--very-verbose", is_flag=True, hidden=True)
@click.pass_context
def evaluate(ctx: click.Context, /, **options: Any) -> int:
    """Run AGENT on the tasks of SOURCE and print the results.

    SOURCE is a Python file, a folder, a .json or .jsonl file, or a source of a plugin. AGENT is a kind
    (oracle, claude), a model (claude-sonnet-4-5) or your own (module:attribute). Results go to stdout,
    everything else to stderr.

    \b
    Ends with 0 when every rollout was graded, 1 when some ended in an error (or the mean is
    below --fail-under), 2 when the command is wrong, 130 when interrupted.
    """
    request = _request(ctx, options)
    if options["detach"]:
        from hud.cli.detach import detach

        return detach(request, sys.argv[1:])
    from hud.cli.evaluation import run

    return run(request)


def _request(ctx: click.Context, given: dict[str, Any]) -> eval_request.EvalRequest:
    """Read the options' words and settle what they mean together."""
    if given["resume"] is not None:
        return _resumed(ctx, given)
    if given["only"] or given["force"]:
        raise click.UsageError("--only and --force go with --resume JOB", ctx=ctx)
    source, agent = given["source"], given["agent"]
    if source is None or agent is None:
        missing = "SOURCE and AGENT" if source is None else "AGENT"
        raise click.UsageError(
            f"missing {missing}: `hud eval tasks.py oracle` runs the reference solutions of tasks.py", ctx=ctx
        )
    output = _output(ctx, given)
    if given["template_args"] and not given["template"]:
        raise click.UsageError("--args needs --task, the template it is for", ctx=ctx)
    if given["template"] and given["task_ids"]:
        raise click.UsageError("--task makes a row, --task-ids chooses rows: give one of them", ctx=ctx)
    files: FileOptions = ctx.obj
    config = {**files.agents.get(agent, {}), **eval_request.agent_config(given["config"], agent)}
    if given["auto_respond"]:
        config.setdefault("auto_respond", True)
    if given["gateway"]:
        config.setdefault("gateway", True)
    return eval_request.EvalRequest(
        source=source,
        agent=agent,
        model=given["model"],
        config=config,
        config_if_known=_wishes(given),
        task_ids=eval_request.words(given["task_ids"]),
        template=given["template"],
        template_args=eval_request.json_object(given["template_args"], "--args"),
        limit=given["limit"],
        group=given["group"],
        max_concurrent=given["max_concurrent"],
        max_steps=given["max_steps"] or (FULL_STEPS if given["full"] else None),
        max_tokens=given["max_tokens"],
        max_cost_usd=given["max_cost"],
        budget=given["budget"],
        keep_state=given["keep_state"],
        verdict_cache=given["verdict_cache"],
        runtime=_runtime(given),
        retries=given["retries"],
        retry_on=_retry_on(given),
        timeout=given["timeout"],
        deadlines={**_file_deadlines(files), **eval_request.deadlines(given["deadline"])},
        name=given["name"],
        tags=eval_request.words(given["tags"]),
        seed=given["seed"],
        solutions=given["solutions"],
        keep=given["keep"],
        fail_under=given["fail_under"],
        output=output,
        verbosity=2 if given["very_verbose"] else given["verbose"],
        dry_run=given["dry_run"],
        debug=given["debug"],
    )


MAY_CHANGE = {
    "config",
    "max_concurrent",
    "max_steps",
    "max_tokens",
    "max_cost",
    "budget",
    "keep_state",
    "verdict_cache",
    "retries",
    "retry_on",
    "timeout",
    "deadline",
    "keep",
    "fail_under",
    "debug",
}
"""Options that may be given anew with --resume, besides those that say what is printed."""
PRINTING = {"as_json", "as_jsonl", "verbose", "very_verbose", "yes", "run_all", "resume", "only", "force"}


def _resumed(ctx: click.Context, given: dict[str, Any]) -> eval_request.EvalRequest:
    """Return the request of the job that goes on, with what may change and was given anew."""
    from click.core import ParameterSource

    from hud.cli.resuming import resumed_request

    anew = {name for name in given if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    fixed = sorted(anew - MAY_CHANGE - PRINTING)
    if fixed:
        raise click.UsageError(
            f"--resume takes {', '.join(fixed).replace('_', '-')} from the job; leave it out, or start another job",
            ctx=ctx,
        )
    made: dict[str, Any] = {
        "output": _output(ctx, given),
        "verbosity": 2 if given["very_verbose"] else given["verbose"],
    }
    words = {"max_cost": "max_cost_usd", "deadline": "deadlines"}
    for name in anew & MAY_CHANGE:
        made[words.get(name, name)] = given[name]
    if "deadline" in anew:
        made["deadlines"] = eval_request.deadlines(given["deadline"])
    if "retry_on" in anew:
        made["retry_on"] = _retry_on(given)
    if "config" in anew:
        made["config"] = eval_request.agent_config(given["config"], "agent")
    return resumed_request(given["resume"], made, only=given["only"], force=given["force"])


def _output(ctx: click.Context, given: dict[str, Any]) -> Literal["table", "json", "jsonl"]:
    if given["as_json"] and given["as_jsonl"]:
        raise click.UsageError("--json and --jsonl exclude each other", ctx=ctx)
    return "json" if given["as_json"] else "jsonl" if given["as_jsonl"] else "table"


def _wishes(given: dict[str, Any]) -> dict[str, Any]:
    """Return what a model's agent should know of the options too: its own bound on steps is lower than some asked."""
    wishes: dict[str, Any] = {"auto_respond": True} if given["full"] else {}
    if given["max_steps"] or given["full"]:
        wishes["max_steps"] = given["max_steps"] or FULL_STEPS
    return wishes


def _runtime(given: dict[str, Any]) -> str | None:
    if not given["remote"]:
        runtime: str | None = given["runtime"]
        return runtime
    if given["runtime"] not in (None, "hosted"):
        raise UsageError(f"--remote means --runtime hosted, not {given['runtime']}")
    return "hosted"


def _retry_on(given: dict[str, Any]) -> dict[str, int]:
    if not given["retry_on"]:
        return {}
    from hud.eval.retries import RETRIES

    return eval_request.retry_on(given["retry_on"], RETRIES if given["retries"] is None else given["retries"])


def _file_deadlines(files: FileOptions) -> dict[str, float]:
    given = files.options.get("deadlines", {})
    try:
        return eval_request.deadlines(f"{phase}={seconds}" for phase, seconds in given.items())
    except UsageError as exc:
        raise ConfigError(f"{files.places['deadlines']}: {exc}") from exc
