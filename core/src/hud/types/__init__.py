"""Pure values: what travels, what is kept, what users read. Each is imported, with its module, on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hud.types.answer import Answer as Answer
    from hud.types.answer import ArgumentHint as ArgumentHint
    from hud.types.answer import DataFileArg as DataFileArg
    from hud.types.answer import DataFileRef as DataFileRef
    from hud.types.answer import DataFilesArg as DataFilesArg
    from hud.types.answer import GradingArg as GradingArg
    from hud.types.answer import PromptArg as PromptArg
    from hud.types.capability import Capability as Capability
    from hud.types.egress import Connection as Connection
    from hud.types.egress import WorkspaceRoute as WorkspaceRoute
    from hud.types.grade import EvaluationResult as EvaluationResult
    from hud.types.grade import Grade as Grade
    from hud.types.grade import SubScore as SubScore
    from hud.types.grade import finite_score as finite_score
    from hud.types.messages import Citation as Citation
    from hud.types.messages import ContentResult as ContentResult
    from hud.types.messages import MCPToolCall as MCPToolCall
    from hud.types.messages import MCPToolResult as MCPToolResult
    from hud.types.messages import PromptMessage as PromptMessage
    from hud.types.messages import Sample as Sample
    from hud.types.messages import ToolCall as ToolCall
    from hud.types.messages import ToolResult as ToolResult
    from hud.types.messages import Usage as Usage
    from hud.types.placement import ComposeProject as ComposeProject
    from hud.types.placement import RuntimeConfig as RuntimeConfig
    from hud.types.placement import RuntimeGPU as RuntimeGPU
    from hud.types.placement import RuntimeLimits as RuntimeLimits
    from hud.types.placement import RuntimeResources as RuntimeResources
    from hud.types.placement import RuntimeTPU as RuntimeTPU
    from hud.types.task import Task as Task
    from hud.types.trace import STEP_KINDS as STEP_KINDS
    from hud.types.trace import AgentStep as AgentStep
    from hud.types.trace import Step as Step
    from hud.types.trace import SubagentStep as SubagentStep
    from hud.types.trace import TaskCall as TaskCall
    from hud.types.trace import ToolStep as ToolStep
    from hud.types.trace import Trace as Trace

_HOMES = {
    name: home
    for home, names in {
        "answer": "Answer ArgumentHint DataFileArg DataFileRef DataFilesArg GradingArg PromptArg",
        "capability": "Capability",
        "egress": "Connection WorkspaceRoute",
        "grade": "EvaluationResult Grade SubScore finite_score",
        "messages": "Citation ContentResult MCPToolCall MCPToolResult PromptMessage Sample ToolCall ToolResult Usage",
        "placement": "ComposeProject RuntimeConfig RuntimeGPU RuntimeLimits RuntimeResources RuntimeTPU",
        "task": "Task",
        "trace": "STEP_KINDS AgentStep Step SubagentStep TaskCall ToolStep Trace",
    }.items()
    for name in names.split()
}

if not TYPE_CHECKING:
    __all__ = sorted(_HOMES)  # noqa: PLE0605 - the table above is the one list

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return __all__
