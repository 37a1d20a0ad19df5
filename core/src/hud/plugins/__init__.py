"""The microkernel: what plugins declare, how they are found, isolated and called.

A declaration module imports this package and nothing heavy: `from hud.plugins import RuntimeKind, hookimpl`.
"""

from hud.plugins.lazy import lazy_names

TYPE_CHECKING = False  # what checkers take for typing's, without its import

if TYPE_CHECKING:
    from hud.plugins.events import Doctor as Doctor
    from hud.plugins.events import Finding as Finding
    from hud.plugins.events import JobFinished as JobFinished
    from hud.plugins.events import JobStarted as JobStarted
    from hud.plugins.events import OpenSink as OpenSink
    from hud.plugins.events import Redact as Redact
    from hud.plugins.events import RolloutFinished as RolloutFinished
    from hud.plugins.events import RolloutStarted as RolloutStarted
    from hud.plugins.events import SelectRuntime as SelectRuntime
    from hud.plugins.hookspecs import HookSpecs as HookSpecs
    from hud.plugins.hookspecs import hookimpl as hookimpl
    from hud.plugins.host import PluginHost as PluginHost
    from hud.plugins.host import Registration as Registration
    from hud.plugins.host import current_host as current_host
    from hud.plugins.host import register as register
    from hud.plugins.kinds import AgentKind as AgentKind
    from hud.plugins.kinds import CapabilityKind as CapabilityKind
    from hud.plugins.kinds import CommandKind as CommandKind
    from hud.plugins.kinds import Declaration as Declaration
    from hud.plugins.kinds import GraderKind as GraderKind
    from hud.plugins.kinds import RuntimeKind as RuntimeKind
    from hud.plugins.kinds import TasksetFormatKind as TasksetFormatKind
    from hud.plugins.kinds import TemplateKind as TemplateKind
    from hud.plugins.kinds import TransportKind as TransportKind

_EVENTS = (
    "Doctor",
    "Finding",
    "JobFinished",
    "JobStarted",
    "OpenSink",
    "Redact",
    "RolloutFinished",
    "RolloutStarted",
    "SelectRuntime",
)
_KINDS = (
    "AgentKind",
    "CapabilityKind",
    "CommandKind",
    "Declaration",
    "GraderKind",
    "RuntimeKind",
    "TasksetFormatKind",
    "TemplateKind",
    "TransportKind",
)
_CORE = {
    **{name: f"hud.plugins.events:{name}" for name in _EVENTS},
    **{name: f"hud.plugins.kinds:{name}" for name in _KINDS},
    "HookSpecs": "hud.plugins.hookspecs:HookSpecs",
    "hookimpl": "hud.plugins.hookspecs:hookimpl",
    "PluginHost": "hud.plugins.host:PluginHost",
    "Registration": "hud.plugins.host:Registration",
    "current_host": "hud.plugins.host:current_host",
    "register": "hud.plugins.host:register",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
