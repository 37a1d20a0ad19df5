"""What core itself declares, by the hooks plugins use."""

from __future__ import annotations

from hud.plugins.hookspecs import hookimpl
from hud.plugins.kinds import AgentKind, GraderKind, RuntimeKind, TransportKind


@hookimpl
def hud_runtimes() -> list[RuntimeKind]:
    """Declare the runtimes that need no plugin."""
    return [
        RuntimeKind(
            name="local",
            target="hud.runtime.local:LocalRuntime",
            summary="A child process per rollout on this machine",
            features={"isolated": True},
        ),
        RuntimeKind(
            name="subprocess",
            target="hud.runtime.subprocess:SubprocessRuntime",
            summary="A fresh Python process per rollout on this machine",
            features={"isolated": True},
        ),
        RuntimeKind(
            name="tcp",
            target="hud.runtime.contract:Runtime",
            summary="An environment that is already served at tcp://host:port",
            features={"isolated": False},
            url_schemes=("tcp", "tls", "unix"),
        ),
    ]


@hookimpl
def hud_agents() -> list[AgentKind]:
    """Declare the agents that need no model."""
    return [
        AgentKind(
            name="oracle",
            target="hud.agents.oracle:OracleAgent",
            summary="Runs the task's reference solution",
        ),
        AgentKind(
            name="replay", target="hud.agents.replay:ReplayAgent", summary="Repeats a recorded trajectory"
        ),
        AgentKind(name="human", target="hud.agents.human:HumanAgent", summary="Lets a person do the task"),
        AgentKind(name="noop", target="hud.agents.noop:NoopAgent", summary="Does nothing"),
    ]


@hookimpl
def hud_graders() -> list[GraderKind]:
    """Declare the graders that need no plugin."""
    return [
        GraderKind(
            name="bash",
            target="hud.graders.bash:BashGrader",
            summary="Runs a command in a fresh sandbox on the agent's files; exit status 0 is 1.0",
        )
    ]


@hookimpl
def hud_transports() -> list[TransportKind]:
    """Declare the url schemes the wire opens by itself."""
    target = "hud.wire.transports:open_transport"
    return [
        TransportKind(name="tcp", scheme="tcp", target=target, summary="Plain TCP"),
        TransportKind(name="tls", scheme="tls", target=target, summary="TCP with TLS"),
        TransportKind(name="unix", scheme="unix", target=target, summary="A unix socket"),
    ]
