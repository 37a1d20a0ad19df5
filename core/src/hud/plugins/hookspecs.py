"""Every hook of the product, as the methods of one class.

A plugin is a module, or an object, with functions of these names marked `@hookimpl`. Written as
`class Cost(HookSpecs)` it is checked by type checkers: the event's type, the return, the colour.

Nouns take no argument and return declarations. They are asked once, when the first name of their kind is looked
up; importing what a declaration names waits until that name is used. Verbs take one frozen event. A verb whose
spec is `async def` may be implemented by `def` or `async def`; one whose spec is `def` only by `def`.

Order: plugins registered in the process, the latest first; then installed ones by (name, distribution); within
that, `@hookimpl(tryfirst=True)` goes before and `trylast=True` after the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from hud.plugins.events import (
        Doctor,
        Finding,
        JobFinished,
        JobStarted,
        OpenSink,
        Redact,
        RolloutFinished,
        RolloutStarted,
        SelectRuntime,
    )
    from hud.plugins.kinds import (
        AgentKind,
        CapabilityKind,
        CommandKind,
        GraderKind,
        RuntimeKind,
        TasksetFormatKind,
        TemplateKind,
        TransportKind,
    )

PROJECT = "hud"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class HookSpecs:
    """The contract between the kernel and its plugins."""

    # Nouns

    @hookspec
    def hud_capabilities(self) -> Iterable[CapabilityKind]:
        """Declare families of capabilities: the protocol ids they speak, their client, backing and tools.

        Fires: when a capability is first opened or served by name; once in a process.
        Returns: `CapabilityKind`s, in any order.
        On an exception: every name of the plugin is broken, and says so when used; others are untouched.
        Used by: `hud-capability-ssh` (`ssh/2`), and `client.open`, `Environment.workspace` on the asking side.
        """
        return ()

    @hookspec
    def hud_runtimes(self) -> Iterable[RuntimeKind]:
        """Declare places where environments run, with the features a row may ask of them.

        Fires: when a runtime is first looked up by name or url; once in a process.
        Returns: `RuntimeKind`s, in any order.
        On an exception: every name of the plugin is broken, and says so when used; others are untouched.
        Used by: core itself (`local`, `subprocess`), `hud-runtime-docker`; asked by `hud eval --runtime` and
        the routes of hud.toml.
        """
        return ()

    @hookspec
    def hud_graders(self) -> Iterable[GraderKind]:
        """Declare grader classes.

        Fires: when a grader is first looked up by name; once in a process.
        Returns: `GraderKind`s, in any order.
        On an exception: every name of the plugin is broken, and says so when used; others are untouched.
        Used by: core itself (`bash`), `hud-grader-llm` (`llm-judge`).
        """
        return ()

    @hookspec
    def hud_agents(self) -> Iterable[AgentKind]:
        """Declare agents: their name, the models they drive, the credentials they can use.

        Fires: when an agent is first looked up by name or by model; once in a process.
        Returns: `AgentKind`s, in any order.
        On an exception: every name of the plugin is broken, and says so when used; others are untouched.
        Used by: core itself (`oracle`, `replay`, `human`, `noop`), `hud-agent-claude`; asked by
        `create_agent` and `hud eval SOURCE AGENT`.
        """
        return ()

    @hookspec
    def hud_taskset_formats(self) -> Iterable[TasksetFormatKind]:
        """Declare sources of rows: a pattern such as `harbor:PATH` or `*.parquet`, and what reads it.

        Fires: when a taskset's source is none that core reads itself; once in a process.
        Returns: `TasksetFormatKind`s, in any order.
        On an exception: every name of the plugin is broken, and says so when used; others are untouched.
        Used by: `Taskset.from_file` and `hud eval SOURCE`; a worked consumer is the format that
        `hud plugins new format` writes.
        """
        return ()

    @hookspec
    def hud_commands(self) -> Iterable[CommandKind]:
        """Declare commands of `hud`.

        Fires: when `hud` is given a command that core does not have; once in a process. `hud --help` reads `name`
        and `summary` from the declaration's source without importing it: write both as plain strings.
        Returns: `CommandKind`s, in any order. A command of core cannot be replaced.
        On an exception: every name of the plugin is broken, and says so when used; others are untouched.
        Used by: `hud` itself.
        """
        return ()

    @hookspec
    def hud_templates(self) -> Iterable[TemplateKind]:
        """Declare scaffolds of `hud init`.

        Fires: when `hud init --template NAME` is none of core's, or the templates are listed; once in a process.
        Returns: `TemplateKind`s, in any order.
        On an exception: every name of the plugin is broken, and says so when used; others are untouched.
        Used by: `hud init`.
        """
        return ()

    @hookspec
    def hud_transports(self) -> Iterable[TransportKind]:
        """Declare url schemes of the control channel, and what opens one as a byte stream.

        Fires: when an address is dialled whose scheme is none of core's (`tcp`, `unix`, `tls`); once in a process.
        Returns: `TransportKind`s, in any order.
        On an exception: every name of the plugin is broken, and says so when used; others are untouched.
        Used by: `hud.wire.client.connect`.
        """
        return ()

    # Verbs

    @hookspec
    async def hud_job_started(self, event: JobStarted) -> None:
        """Learn that a job is about to schedule its first rollout.

        Fires: once a job, before its first rollout; `hud eval --resume` fires it again for the same id.
        Dispatch: notify; all at once, each within 5 s.
        On an exception: reported and counted, never propagated.
        Used by: sinks and dashboards; a worked consumer is docs/plugins/hooks.md.
        """

    @hookspec
    async def hud_job_finished(self, event: JobFinished) -> None:
        """Learn that a job has ended, also by cancellation.

        Fires: exactly once for each `hud_job_started`, after the last `hud_rollout_finished`.
        Dispatch: notify, shielded from cancellation; all at once, each within 5 s.
        On an exception: reported and counted, never propagated.
        Used by: sinks and dashboards; a worked consumer is docs/plugins/hooks.md.
        """

    @hookspec
    async def hud_rollout_started(self, event: RolloutStarted) -> None:
        """Learn that a rollout left the queue and its placement begins.

        Fires: once a rollout and attempt, before anything is placed.
        Dispatch: notify; all at once, each within 5 s.
        On an exception: reported and counted, never propagated.
        Used by: sinks and dashboards; a worked consumer is docs/plugins/hooks.md.
        """

    @hookspec
    async def hud_rollout_finished(self, event: RolloutFinished) -> None:
        """Learn that a rollout is over and recorded.

        Fires: exactly once a rollout, whatever became of it, after its record is durable.
        Dispatch: notify, shielded from cancellation; all at once, each within 5 s.
        On an exception: reported and counted, never propagated.
        Used by: sinks and dashboards; a worked consumer is docs/plugins/hooks.md.
        """

    @hookspec
    async def hud_select_runtime(self, event: SelectRuntime) -> Any | None:
        """Decide where a row runs, or leave it to the next plugin.

        Fires: once a row for which no argument, `runtime_config` or route of hud.toml decides.
        Dispatch: first; in order, each awaited, until one answers.
        Returns: a `Provider`, a runtime's name, or None.
        On an exception: `PluginHookError` naming the plugin; the row is not placed by guess.
        Used by: clusters and companies that place by their own rules; docs/plugins/hooks.md.
        """

    @hookspec
    def hud_redact(self, event: Redact) -> Mapping[str, Any] | None:
        """Remove secrets from a record before anything stores or sends it.

        Fires: for each step, grade, error and job record, on the hot path: be quick.
        Dispatch: fold; in order, each receives what the one before returned.
        Returns: the record to keep (a new mapping or the one received), or None to drop it.
        On an exception: the record is dropped, reported and counted: redaction fails closed.
        Used by: companies with secrets of their own shape; docs/plugins/hooks.md.
        """

    @hookspec
    async def hud_open_sink(self, event: OpenSink) -> Any | None:
        """Give a sink that also receives the job's events, besides the job file.

        Fires: once a job, before `hud_job_started`.
        Dispatch: collect; in order, each within 5 s. The job closes each sink once.
        Returns: an object with the methods of `hud.store.sink.Sink`, or None. They are called on a thread of their
        own, which nobody waits for.
        On an exception: reported and counted; the job runs without this sink.
        Used by: `hud-sink-otel`; a worked consumer is docs/plugins/sink.md.
        """

    @hookspec
    async def hud_doctor(self, event: Doctor) -> Iterable[Finding] | None:
        """Look for trouble in what the plugin needs: a daemon, a key, a binary.

        Fires: once for each `hud doctor`.
        Dispatch: collect; in order, each within 5 s.
        Returns: `Finding`s, each with a fix, or None.
        On an exception: shown as a finding of its own.
        Used by: `hud doctor`.
        """


def hook_names() -> list[str]:
    """Return the names of all hooks, nouns first, as declared."""
    return [name for name in vars(HookSpecs) if name.startswith("hud_")]
