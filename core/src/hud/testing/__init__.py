"""Contract kits and fakes, for plugin authors and for ourselves; the kits need pytest and hud-core only.

A kit is a class to inherit in a test module and one fixture to supply:

    class TestAcme(RuntimeContract):
        @pytest.fixture
        def make_provider(self):
            return AcmeRuntime

What an implementation cannot do is declared, not deleted: `features` leave out what it does not offer,
`known_failures = {"test_...": "why"}` marks what it does wrong, strictly, so that the entry goes when it is mended.
"""

import sys
from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud.testing.agent import AgentContract as AgentContract
    from hud.testing.backing import UnconfinedWorkspace as UnconfinedWorkspace
    from hud.testing.capability import CapabilityContract as CapabilityContract
    from hud.testing.command import CommandContract as CommandContract
    from hud.testing.command import Invoked as Invoked
    from hud.testing.contract import Contract as Contract
    from hud.testing.contract import asynchronous as asynchronous
    from hud.testing.environments import play as play
    from hud.testing.environments import session_of as session_of
    from hud.testing.grader import Graded as Graded
    from hud.testing.grader import GraderContract as GraderContract
    from hud.testing.plugins import isolated_host as isolated_host
    from hud.testing.rawclient import RawClient as RawClient
    from hud.testing.runtime import RuntimeContract as RuntimeContract
    from hud.testing.service import FakeService as FakeService
    from hud.testing.service_contract import ServiceContract as ServiceContract
    from hud.testing.shell import ShellContract as ShellContract
    from hud.testing.taskset_format import TasksetFormatContract as TasksetFormatContract
    from hud.testing.template import TemplateContract as TemplateContract
    from hud.testing.transport import TransportContract as TransportContract

_CORE = {
    "AgentContract": "hud.testing.agent:AgentContract",
    "CapabilityContract": "hud.testing.capability:CapabilityContract",
    "CommandContract": "hud.testing.command:CommandContract",
    "Invoked": "hud.testing.command:Invoked",
    "Contract": "hud.testing.contract:Contract",
    "asynchronous": "hud.testing.contract:asynchronous",
    "Graded": "hud.testing.grader:Graded",
    "GraderContract": "hud.testing.grader:GraderContract",
    "isolated_host": "hud.testing.plugins:isolated_host",
    "RawClient": "hud.testing.rawclient:RawClient",
    "RuntimeContract": "hud.testing.runtime:RuntimeContract",
    "FakeService": "hud.testing.service:FakeService",
    "ServiceContract": "hud.testing.service_contract:ServiceContract",
    "ShellContract": "hud.testing.shell:ShellContract",
    "UnconfinedWorkspace": "hud.testing.backing:UnconfinedWorkspace",
    "play": "hud.testing.environments:play",
    "session_of": "hud.testing.environments:session_of",
    "TasksetFormatContract": "hud.testing.taskset_format:TasksetFormatContract",
    "TemplateContract": "hud.testing.template:TemplateContract",
    "TransportContract": "hud.testing.transport:TransportContract",
}

if not TYPE_CHECKING:
    if "pytest" in sys.modules:
        # Assertions of the kits explain themselves as those of a test module do.
        sys.modules["pytest"].register_assert_rewrite(
            *(
                home
                for home in {target.partition(":")[0] for target in _CORE.values()}
                if home not in sys.modules
            )
        )
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
