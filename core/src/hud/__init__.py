"""hud: define an environment once, run any agent on any task in it, anywhere."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud.environment.env import Environment as Environment
    from hud.types import ComposeProject as ComposeProject
    from hud.types import Grade as Grade
    from hud.types import RuntimeConfig as RuntimeConfig
    from hud.types import RuntimeGPU as RuntimeGPU
    from hud.types import RuntimeLimits as RuntimeLimits
    from hud.types import RuntimeResources as RuntimeResources
    from hud.types import RuntimeTPU as RuntimeTPU
    from hud.types import Task as Task
    from hud.types import Trace as Trace

__version__ = "0.1.0"

_CORE = {
    "Environment": "hud.environment.env:Environment",
    "Chat": "hud.eval.chat:Chat",
    "Job": "hud.eval.job:Job",
    "Run": "hud.eval.run:Run",
    "Taskset": "hud.eval.taskset:Taskset",
    "LocalRuntime": "hud.runtime.local:LocalRuntime",
    "SubprocessRuntime": "hud.runtime.subprocess:SubprocessRuntime",
    "Runtime": "hud.runtime.contract:Runtime",
    "connect": "hud.wire.client:connect",
    "instrument": "hud.telemetry:instrument",
    **{
        name: f"hud.types:{name}"
        for name in (
            "ComposeProject",
            "Grade",
            "RuntimeConfig",
            "RuntimeGPU",
            "RuntimeLimits",
            "RuntimeResources",
            "RuntimeTPU",
            "Task",
            "Trace",
        )
    },
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
