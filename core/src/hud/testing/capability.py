"""The contract of a capability: a backing serves it, a client drives it through the wire, tools make it anyone's."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hud.capability.backing import Backing, ContainsAgent
from hud.capability.tool import Tool, safe_name
from hud.environment import Environment
from hud.environment.serve import bind
from hud.errors import HudError
from hud.plugins import CapabilityKind, hookimpl
from hud.runtime.contract import Runtime
from hud.testing.contract import Contract, assert_nothing_left, asynchronous
from hud.testing.plugins import isolated_host
from hud.testing.processes import descendants
from hud.types import Capability, MCPToolResult
from hud.wire.client import HudClient, connect

MakeBacking = Callable[[Path], Backing]


class CapabilityContract(Contract):
    """Inherit it, name the declared `kind`, and supply `make_backing`.

    `make_backing(folder)` returns a fresh backing; `folder` is an empty one of its own. `tool_calls` gives arguments
    that work for each tool the kind makes; a tool missing there is called with none.
    """

    kind: ClassVar[CapabilityKind]
    tool_calls: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @pytest.fixture
    def make_backing(self) -> MakeBacking:
        """Supply this: a function from an empty folder to a backing."""
        pytest.fail(f"{type(self).__name__} must supply the fixture make_backing")

    @asynccontextmanager
    async def served(self, backing: Backing) -> AsyncIterator[HudClient]:
        """Serve an environment with `backing` on a loopback port and connect to it, as an agent would."""
        env = Environment("contract")
        env.use(backing)

        @env.template()
        async def nothing() -> Any:
            yield "Do nothing."
            yield 1.0

        with isolated_host(_Declares(self.kind)):
            async with await bind(env) as server, connect(Runtime(server.url), ready_timeout=60) as client:
                assert isinstance(client, HudClient)  # over the wire, never in process
                yield client

    def test_everything_declared_can_be_imported(self) -> None:
        with isolated_host(_Declares(self.kind)) as host:
            for role in self.kind.targets():
                assert callable(host.registry.load(self.kind, role)), role

    @asynchronous
    async def test_the_backing_offers_its_protocol_in_the_manifest(
        self, make_backing: MakeBacking, tmp_path: Path
    ) -> None:
        async with self.served(make_backing(tmp_path)) as client:
            offered = self.offered(client)
            assert Capability.from_manifest(json.loads(json.dumps(offered.to_manifest()))) == offered
            for name in Capability.SECRET_PARAMS & set(offered.params):
                assert str(offered.params[name]) not in repr(offered)

    @asynchronous
    async def test_a_client_opens_by_name_protocol_and_family(
        self, make_backing: MakeBacking, tmp_path: Path
    ) -> None:
        async with self.served(make_backing(tmp_path)) as client:
            offered = self.offered(client)
            opened = await client.open(offered.name)
            assert opened is await client.open(offered.protocol)
            assert opened is await client.open(offered.family)

    @asynchronous
    async def test_several_agents_at_once_are_served(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        async with self.served(make_backing(tmp_path)) as client:
            name = self.offered(client).name
            url = client.url

            async def open_one() -> None:
                async with connect(Runtime(url), ready_timeout=60) as another:
                    await another.open(name)

            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(open_one())

    @asynchronous
    async def test_a_client_can_be_closed_twice(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        async with self.served(make_backing(tmp_path)) as client:
            opened = await client.open(self.offered(client).name)
            await opened.close()
            await opened.close()

    @asynchronous
    async def test_stopping_leaves_nothing(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        before = descendants()
        async with self.served(make_backing(tmp_path)) as client:
            await client.open(self.offered(client).name)
        await assert_nothing_left(descendants, before, "the environment was stopped")

    @asynchronous
    async def test_a_backing_stops_twice_and_before_it_started(
        self, make_backing: MakeBacking, tmp_path: Path
    ) -> None:
        backing = make_backing(tmp_path)
        await backing.stop()
        backing = make_backing(tmp_path)
        await backing.start()
        await backing.stop()
        await backing.stop()

    @asynchronous
    async def test_a_start_that_is_cancelled_leaves_nothing(
        self, make_backing: MakeBacking, tmp_path: Path
    ) -> None:
        before = descendants()
        for turns in (0, 1, 3, 10):
            backing = make_backing(tmp_path)
            starting = asyncio.ensure_future(backing.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
            await backing.stop()
        await assert_nothing_left(descendants, before, "the start was cancelled and the backing stopped")

    @asynchronous
    async def test_tools_are_well_formed(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        async with self.served(make_backing(tmp_path)) as client, self.tools(client) as tools:
            names = [tool.name for tool in tools]
            assert names, "the kind declares tools and makes none"
            assert len(set(names)) == len(names), names
            for tool in tools:
                assert tool.name == safe_name(tool.name), f"{tool.name!r} is refused by providers"
                assert tool.description.strip(), f"{tool.name} has no description"
                assert tool.parameters.get("type") == "object", f"{tool.name}: {tool.parameters}"
                properties = tool.parameters.get("properties", {})
                assert set(tool.parameters.get("required", ())) <= set(properties), tool.name
                json.dumps(tool.parameters)

    @asynchronous
    async def test_tools_answer(self, make_backing: MakeBacking, tmp_path: Path) -> None:
        async with self.served(make_backing(tmp_path)) as client, self.tools(client) as tools:
            unknown = set(self.tool_calls) - {tool.name for tool in tools}
            assert not unknown, f"tool_calls names tools that are not there: {sorted(unknown)}"
            for tool in tools:
                arguments = self.tool_calls.get(tool.name, {})
                if set(tool.parameters.get("required", ())) - set(arguments):
                    pytest.fail(f"tool_calls needs arguments for {tool.name}")
                result = await tool(arguments)
                assert isinstance(result, MCPToolResult), f"{tool.name} answered {result!r}"
                assert not result.isError, f"{tool.name}({dict(arguments)}) answered {result.content}"

    @asynchronous
    async def test_sealing_ends_the_agents_channel_and_unsealing_opens_it(
        self, make_backing: MakeBacking, tmp_path: Path
    ) -> None:
        backing = make_backing(tmp_path)
        if not isinstance(backing, ContainsAgent):
            pytest.skip("no agent's processes run in this backing")
        async with self.served(backing) as client:
            name = self.offered(client).name
            await client.open(name)
            await backing.seal(keep_agent_processes=False)
            async with connect(Runtime(client.url), ready_timeout=60) as late:
                with pytest.raises((HudError, OSError)):
                    async with asyncio.timeout(30):
                        await late.open(name)
            await backing.unseal()
            async with connect(Runtime(client.url), ready_timeout=60) as after:
                await after.open(name)

    def offered(self, client: HudClient) -> Capability:
        """Return the capability of this kind in the manifest."""
        found = [entry for entry in client.manifest.bindings if entry.protocol in self.kind.protocols]
        assert found, f"the manifest offers none of {self.kind.protocols}: {client.manifest.bindings}"
        return found[0]

    @asynccontextmanager
    async def tools(self, client: HudClient) -> AsyncIterator[list[Tool]]:
        """Make the tools of this kind and close them at the end; skips where the kind declares none."""
        if not self.kind.tools:
            pytest.skip("the kind declares no tools")
        offered = self.offered(client)
        opened = await client.open(offered.name)
        with isolated_host(_Declares(self.kind)) as host:
            make = host.registry.load(self.kind, "tools")
        made = make(opened, offered)
        tools: list[Tool] = await made if inspect.isawaitable(made) else made
        try:
            yield tools
        finally:
            for tool in tools:
                if tool.close is not None:
                    await tool.close()


class _Declares:
    """A plugin of one capability kind."""

    def __init__(self, kind: CapabilityKind) -> None:
        self.kind = kind

    @hookimpl
    def hud_capabilities(self) -> list[CapabilityKind]:
        return [self.kind]
