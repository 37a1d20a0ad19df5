"""The environment side: declare, load, serve."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud.capability.backing import Backing as Backing
    from hud.environment.current import TaskContext as TaskContext
    from hud.environment.current import current as current
    from hud.environment.current import on_service_loop as on_service_loop
    from hud.environment.env import Environment as Environment
    from hud.environment.loading import load_environment as load_environment
    from hud.environment.service import serving as serving
    from hud.environment.template import Template as Template
    from hud.types import Answer as Answer
    from hud.types import ArgumentHint as ArgumentHint
    from hud.types import Capability as Capability
    from hud.types import DataFileArg as DataFileArg
    from hud.types import DataFileRef as DataFileRef
    from hud.types import DataFilesArg as DataFilesArg
    from hud.types import GradingArg as GradingArg
    from hud.types import PromptArg as PromptArg
    from hud.types import WorkspaceRoute as WorkspaceRoute
    from hud_capability_gui.browser import Browser as Browser
    from hud_capability_gui.desktop import Desktop as Desktop
    from hud_capability_mcp.server import ToolServer as ToolServer
    from hud_capability_ssh.mounts import DEFAULT_SYSTEM_MOUNTS as DEFAULT_SYSTEM_MOUNTS
    from hud_capability_ssh.mounts import Mount as Mount
    from hud_capability_ssh.mounts import MountKind as MountKind
    from hud_capability_ssh.peers import Peer as Peer
    from hud_capability_ssh.workspace import Workspace as Workspace

_CORE = {
    "Answer": "hud.types:Answer",
    "ArgumentHint": "hud.types:ArgumentHint",
    "Backing": "hud.capability.backing:Backing",
    "Capability": "hud.types:Capability",
    "DataFileArg": "hud.types:DataFileArg",
    "DataFileRef": "hud.types:DataFileRef",
    "DataFilesArg": "hud.types:DataFilesArg",
    "Environment": "hud.environment.env:Environment",
    "GradingArg": "hud.types:GradingArg",
    "PromptArg": "hud.types:PromptArg",
    "Template": "hud.environment.template:Template",
    "TaskContext": "hud.environment.current:TaskContext",
    "WorkspaceRoute": "hud.types:WorkspaceRoute",
    "current": "hud.environment.current:current",
    "load_environment": "hud.environment.loading:load_environment",
    "on_service_loop": "hud.environment.current:on_service_loop",
    "serving": "hud.environment.service:serving",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
