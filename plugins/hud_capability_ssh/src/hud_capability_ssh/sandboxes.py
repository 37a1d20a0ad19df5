"""The sandboxes of one workspace: the agent's, that of the template's services, and fresh ones for graders."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hud.errors import SandboxError

if TYPE_CHECKING:
    from hud.capability.interfaces import CommandResult
    from hud_capability_ssh.egress import Egress
    from hud_capability_ssh.launched import Launched
    from hud_capability_ssh.loopback import Relay
    from hud_capability_ssh.peers import Peer
    from hud_capability_ssh.sandbox import Sandbox
    from hud_capability_ssh.spec import SandboxSpec

Command = str | Sequence[str]


class Sandboxes:
    """Starts them when they are wanted, again when one had ended, and ends them all.

    `engine` is None until the first start found out what can be had. `spec` may be replaced before it.
    """

    def __init__(
        self, spec: SandboxSpec, engine: str | None, hosts: Sequence[str], peers: Sequence[Peer]
    ) -> None:
        self.spec = spec
        self.engine = engine
        self._hosts, self._peers = hosts, tuple(peers)
        self._egress: Egress | None = None
        self._agent: Sandbox | None = None
        self._services: Sandbox | None = None
        self._relay: Relay | None = None
        self._launched: list[Launched] = []
        self._starting = asyncio.Lock()

    async def agent(self) -> Sandbox:
        """Return the agent's; one that had ended is started anew on the same files."""
        from hud_capability_ssh.loopback import Relay

        async with self._starting:
            if self._agent is not None and self._agent.dead.is_set():
                await self._close_agent()
            if self._agent is None:
                self._agent = await self.start(self.spec)
            if self._relay is None and self._services is not None:
                self._relay = Relay(self._services, self._agent)
                await self._relay.start()
            return self._agent

    @property
    def live_agent(self) -> Sandbox | None:
        """The agent's, where it lives."""
        return None if self._agent is None or self._agent.dead.is_set() else self._agent

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """Start one more, with its ways out; who asked closes it.

        Raises:
            SandboxError: no isolation can be had, or no network with the engine there is.
        """
        made = await self._confined(spec)
        if self._hosts or self._peers:
            from hud_capability_ssh.egress import Egress

            self._egress = self._egress or Egress(self._hosts, self._peers)
            if made.engine == "landlock":
                await made.close()
                raise SandboxError(
                    "the landlock engine has no network of its own: network= and peers= need bubblewrap "
                    "(in a container, DockerRuntime(..., workspaces='namespaces'))"
                )
            made.servers += await self._egress.open(made)
        return made

    async def _confined(self, spec: SandboxSpec) -> Sandbox:
        from hud_capability_ssh.sandbox import Sandbox

        if self.engine is not None:
            return await Sandbox.start(spec, self.engine)
        refused = []
        for engine in ("bubblewrap", "landlock"):
            try:
                made = await Sandbox.start(spec, engine)
            except SandboxError as error:
                refused.append(str(error))
                continue
            self.engine = engine
            return made
        raise SandboxError(
            f"no isolation can be had for workspace {spec.root.name!r}: {'; '.join(refused)}. Install bubblewrap "
            "and allow user namespaces, or give isolation='none' where the agent may do everything this process may"
        )

    async def launch(
        self, command: Command, *, service: bool, cwd: str | None, env: Mapping[str, str] | None
    ) -> Launched:
        """Start a process beside the agent's, or as a service in the sandbox that the agent cannot see."""
        from hud_capability_ssh.launched import Launched

        if service and (self._services is None or self._services.dead.is_set()):
            await self._close_relay()
            self._services = await self.start(self.spec)
        home = await self.agent()
        if service:
            assert self._services is not None
            home = self._services
        child = await home.spawn(command, cwd=cwd, env=env)
        launched = Launched(child, command if isinstance(command, str) else " ".join(command))
        self._launched.append(launched)
        return launched

    def grader_spec(self, *, kept: bool) -> SandboxSpec:
        """Return what a grader's sandbox is: an empty home, and read-only files while an agent's processes live on."""
        from hud_capability_ssh.grading import HOME

        return replace(self.spec, name="grader", guest_home=HOME, root_writable=not kept)

    async def grade(
        self,
        command: Command,
        *,
        kept: bool,
        cwd: str | None,
        timeout_s: float,
        env: Mapping[str, str] | None,
        files: Mapping[str, bytes | Path],
    ) -> CommandResult:
        """Run one grading command in a sandbox of its own; with `kept`, beside the agent's processes."""
        from hud_capability_ssh.grading import grade_inside

        agent = self.live_agent if kept else None
        services = None if self._services is None or self._services.dead.is_set() else self._services
        return await grade_inside(
            self.grader_spec(kept=agent is not None),
            self.engine or "bubblewrap",
            command,
            cwd=cwd,
            timeout_s=timeout_s,
            env=env,
            files=files,
            beside=[box for box in (agent, services) if box is not None],
            agent=agent,
            egress=self._egress,
        )

    async def end_agent(self) -> None:
        """End the agent's, with everything inside."""
        async with self._starting:
            await self._close_agent()

    async def end_services(self) -> None:
        """End what the template launched."""
        await self._close_relay()
        for launched in self._launched:
            launched.close()
        self._launched = []
        services, self._services = self._services, None
        if services is not None:
            await services.close()

    async def close(self) -> None:
        """End them all, and the ways out. Safe to call twice."""
        await self.end_agent()
        await self.end_services()
        egress, self._egress = self._egress, None
        if egress is not None:
            await egress.close()

    async def _close_agent(self) -> None:
        await self._close_relay()
        agent, self._agent = self._agent, None
        if agent is not None:
            await agent.close()

    async def _close_relay(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            await relay.close()
