"""hud: define an environment once, run any agent on any task in it, anywhere."""

from hud.plugins.lazy import lazy_names

TYPE_CHECKING = False  # what checkers take for typing's, without its import

if TYPE_CHECKING:
    from hud.environment.env import Environment as Environment
    from hud.eval.chat import Chat as Chat
    from hud.eval.job import Job as Job
    from hud.eval.run import Run as Run
    from hud.eval.taskset import Taskset as Taskset
    from hud.runtime.contract import Runtime as Runtime
    from hud.runtime.local import LocalRuntime as LocalRuntime
    from hud.runtime.subprocess import SubprocessRuntime as SubprocessRuntime
    from hud.telemetry import instrument as instrument
    from hud.types import ComposeProject as ComposeProject
    from hud.types import Connection as Connection
    from hud.types import Grade as Grade
    from hud.types import RuntimeConfig as RuntimeConfig
    from hud.types import RuntimeGPU as RuntimeGPU
    from hud.types import RuntimeLimits as RuntimeLimits
    from hud.types import RuntimeResources as RuntimeResources
    from hud.types import RuntimeTPU as RuntimeTPU
    from hud.types import Task as Task
    from hud.types import Trace as Trace
    from hud.wire.client import connect as connect
    from hud_runtime_docker.runtime import DockerRuntime as DockerRuntime
    from hud_runtime_hud.hosted import HostedRuntime as HostedRuntime
    from hud_runtime_hud.runtime import HUDRuntime as HUDRuntime

__version__ = "0.1.0"

_CORE = {
    "Chat": "hud.eval.chat:Chat",
    "ComposeProject": "hud.types:ComposeProject",
    "Connection": "hud.types:Connection",
    "Environment": "hud.environment.env:Environment",
    "Grade": "hud.types:Grade",
    "Job": "hud.eval.job:Job",
    "LocalRuntime": "hud.runtime.local:LocalRuntime",
    "Run": "hud.eval.run:Run",
    "Runtime": "hud.runtime.contract:Runtime",
    "RuntimeConfig": "hud.types:RuntimeConfig",
    "RuntimeGPU": "hud.types:RuntimeGPU",
    "RuntimeLimits": "hud.types:RuntimeLimits",
    "RuntimeResources": "hud.types:RuntimeResources",
    "RuntimeTPU": "hud.types:RuntimeTPU",
    "SubprocessRuntime": "hud.runtime.subprocess:SubprocessRuntime",
    "Task": "hud.types:Task",
    "Taskset": "hud.eval.taskset:Taskset",
    "Trace": "hud.types:Trace",
    "connect": "hud.wire.client:connect",
    "instrument": "hud.telemetry:instrument",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
