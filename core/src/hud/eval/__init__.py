"""The engine: rows, rollouts, jobs."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud.eval.chat import Chat as Chat
    from hud.eval.deadlines import Deadlines as Deadlines
    from hud.eval.failures import Failure as Failure
    from hud.eval.job import Job as Job
    from hud.eval.limits import Limits as Limits
    from hud.eval.options import Options as Options
    from hud.eval.rollout import rollout as rollout
    from hud.eval.run import Run as Run
    from hud.eval.stats import JobSummary as JobSummary
    from hud.eval.taskset import RunStream as RunStream
    from hud.eval.taskset import Taskset as Taskset
    from hud.runtime.contract import Delegate as Delegate
    from hud.runtime.contract import Features as Features
    from hud.runtime.contract import Provider as Provider
    from hud.runtime.contract import Runtime as Runtime
    from hud.runtime.local import LocalRuntime as LocalRuntime
    from hud.runtime.pool import Pool as Pool
    from hud.runtime.shared import Shared as Shared
    from hud.runtime.subprocess import SubprocessRuntime as SubprocessRuntime
    from hud.types import ComposeProject as ComposeProject
    from hud.types import Grade as Grade
    from hud.types import RuntimeConfig as RuntimeConfig
    from hud.types import RuntimeGPU as RuntimeGPU
    from hud.types import RuntimeLimits as RuntimeLimits
    from hud.types import RuntimeResources as RuntimeResources
    from hud.types import RuntimeTPU as RuntimeTPU
    from hud.types import Task as Task
    from hud.types import Trace as Trace
    from hud_runtime_daytona.runtime import DaytonaRuntime as DaytonaRuntime
    from hud_runtime_docker.options import DockerBindMount as DockerBindMount
    from hud_runtime_docker.runtime import DockerRuntime as DockerRuntime
    from hud_runtime_e2b.runtime import E2BRuntime as E2BRuntime
    from hud_runtime_hud.hosted import HostedRuntime as HostedRuntime
    from hud_runtime_hud.runtime import HUDRuntime as HUDRuntime
    from hud_runtime_modal.runtime import ModalRuntime as ModalRuntime

_CORE = {
    "Chat": "hud.eval.chat:Chat",
    "ComposeProject": "hud.types:ComposeProject",
    "Deadlines": "hud.eval.deadlines:Deadlines",
    "Delegate": "hud.runtime.contract:Delegate",
    "Failure": "hud.eval.failures:Failure",
    "Features": "hud.runtime.contract:Features",
    "Grade": "hud.types:Grade",
    "Job": "hud.eval.job:Job",
    "Limits": "hud.eval.limits:Limits",
    "JobSummary": "hud.eval.stats:JobSummary",
    "LocalRuntime": "hud.runtime.local:LocalRuntime",
    "Options": "hud.eval.options:Options",
    "Pool": "hud.runtime.pool:Pool",
    "Provider": "hud.runtime.contract:Provider",
    "Run": "hud.eval.run:Run",
    "RunStream": "hud.eval.taskset:RunStream",
    "Runtime": "hud.runtime.contract:Runtime",
    "RuntimeConfig": "hud.types:RuntimeConfig",
    "RuntimeGPU": "hud.types:RuntimeGPU",
    "RuntimeLimits": "hud.types:RuntimeLimits",
    "RuntimeResources": "hud.types:RuntimeResources",
    "RuntimeTPU": "hud.types:RuntimeTPU",
    "Shared": "hud.runtime.shared:Shared",
    "SubprocessRuntime": "hud.runtime.subprocess:SubprocessRuntime",
    "Task": "hud.types:Task",
    "Taskset": "hud.eval.taskset:Taskset",
    "Trace": "hud.types:Trace",
    "rollout": "hud.eval.rollout:rollout",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
