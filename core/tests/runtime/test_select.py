"""Where a row runs: argument, its own needs, hud.toml, a hook, its declaration, or an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hud.environment import Environment
from hud.errors import (
    ConfigError,
    PlacementUndecidedError,
    PluginNotInstalledError,
    SourceError,
    UnsupportedConfigError,
    UsageError,
)
from hud.plugins.events import SelectRuntime
from hud.plugins.hookspecs import hookimpl
from hud.plugins.host import PluginHost
from hud.plugins.kinds import RuntimeKind
from hud.runtime.contract import Delegate, Features, Provider, Runtime
from hud.runtime.local import LocalRuntime
from hud.runtime.select import Placements, provider_for
from hud.runtime.shared import Shared
from hud.runtime.subprocess import SubprocessRuntime
from hud.types import RuntimeConfig, RuntimeGPU, RuntimeResources, Task

pytestmark = pytest.mark.anyio


class Cloud:
    """A runtime of a plugin; remembers what it was made with and what it was asked for."""

    def __init__(self, image: str | None = None, *, region: str = "any") -> None:
        self.image = image
        self.region = region
        self.asked: list[Task] = []

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
        self.asked.append(task)
        yield Runtime("tcp://127.0.0.1:1")


class Elsewhere:
    """A delegate of a plugin."""

    async def run(self, task: Task, agent: Any, **options: Any) -> Any:
        return task


class Plugin:
    """Declares both, and answers for environments called `hooked`."""

    @hookimpl
    def hud_runtimes(self) -> list[RuntimeKind]:
        return [
            RuntimeKind(
                name="cloud",
                target=f"{__name__}:Cloud",
                features={"image": True, "gpu": True, "memory": True},
                url_schemes=("cloud",),
            ),
            RuntimeKind(name="elsewhere", target=f"{__name__}:Elsewhere", features={"image": True}),
        ]

    @hookimpl
    async def hud_select_runtime(self, event: SelectRuntime) -> Any:
        return "cloud" if event.task.env == "hooked" else None


@pytest.fixture
def host() -> PluginHost:
    from hud.plugins.discovery import Discovered
    from hud.plugins.policy import PluginPolicy

    made = PluginHost(
        discovered=lambda: Discovered([], []), of_distribution=lambda name: [], policy=PluginPolicy()
    )
    made.register(Plugin(), name="clouds")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "env.py").write_text("from hud.environment import Environment\nenv = Environment('demo')\n")
    (tmp_path / "hud.toml").write_text("")
    return tmp_path


def demo(folder: Path | None = None, **fields: Any) -> Task:
    return Task(
        env=fields.pop("env", "demo"), id="x", source=str(folder / "env.py") if folder else None, **fields
    )


GPU = RuntimeConfig(resources=RuntimeResources(gpu=RuntimeGPU("H100")))


def satisfies(thing: object, protocol: type) -> bool:
    return isinstance(thing, protocol)


async def test_the_argument_goes_first(folder: Path, host: PluginHost) -> None:
    given = Cloud()
    assert await provider_for(demo(folder, env="hooked"), given, folder=folder, host=host) is given


async def test_names_urls_paths_and_environments_are_arguments_too(folder: Path, host: PluginHost) -> None:
    places = Placements("cloud", host=host)
    assert type(await places.provider_for(demo())).__name__ == "Cloud"
    tcp = await provider_for(demo(), "tcp://127.0.0.1:7", host=host)
    assert isinstance(tcp, Runtime)
    assert tcp.url == "tcp://127.0.0.1:7"
    theirs: Any = await provider_for(demo(), "cloud://here", host=host)
    assert theirs.image == "cloud://here"
    live = Environment("live")
    for source in (folder / "env.py", str(folder / "env.py"), live):
        local = await provider_for(demo(), source, host=host)
        assert isinstance(local, LocalRuntime)
        assert local.source == source
    assert isinstance(await provider_for(demo(folder), "local", host=host), LocalRuntime)
    assert isinstance(await provider_for(demo(folder), "subprocess", host=host), SubprocessRuntime)


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("docker", PluginNotInstalledError, "pip install hud-runtime-docker"),
        ("clowd", PluginNotInstalledError, "cloud"),
        ("nothing://x", UsageError, "tcp://"),
        (7, UsageError, "is no runtime"),
    ],
)
async def test_an_argument_that_is_no_runtime_is_named(
    host: PluginHost, argument: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await provider_for(demo(), argument, host=host)


async def test_what_an_argument_cannot_give_is_refused_with_those_that_can(
    folder: Path, host: PluginHost
) -> None:
    with pytest.raises(
        UnsupportedConfigError, match=r"LocalRuntime cannot provide resources\.gpu.*use cloud"
    ):
        await provider_for(demo(folder, runtime_config=GPU), LocalRuntime("env.py"), host=host)
    with pytest.raises(UnsupportedConfigError, match=r"local cannot provide resources\.gpu.*cloud"):
        await provider_for(demo(folder, runtime_config=GPU), "local", host=host)


async def test_a_rows_needs_choose_the_only_runtime_that_can(folder: Path, host: PluginHost) -> None:
    chosen = await provider_for(demo(folder, runtime_config=GPU), folder=folder, host=host)
    assert type(chosen).__name__ == "Cloud"
    several = demo(folder, runtime_config=RuntimeConfig(image="acme"))
    with pytest.raises(PlacementUndecidedError, match="cloud and elsewhere"):
        await provider_for(several, folder=folder, host=host)
    tpu = demo(folder, runtime_config=RuntimeConfig(resources=RuntimeResources(storage_mb=1)))
    with pytest.raises(UnsupportedConfigError, match="no installed runtime can"):
        await provider_for(tpu, folder=folder, host=host)


async def test_a_route_gives_runtime_options_and_configuration(folder: Path, host: PluginHost) -> None:
    (folder / "hud.toml").write_text("""
[runtime]
default = "subprocess"
[runtime.env."sim-*"]
use = "cloud"
image = "acme/sim"
resources = { gpu = { type = "H100" }, memory_mb = 1024 }
options = { region = "north" }
[runtime.env."far"]
use = "elsewhere"
image = "acme/far"
""")
    places = Placements(folder=folder, host=host)
    routed: Any = await places.provider_for(demo(env="sim-1"))
    assert satisfies(routed, Provider)
    assert routed.inner.region == "north"
    own = RuntimeConfig(resources=RuntimeResources(memory_mb=9))
    async with routed(demo(env="sim-1", runtime_config=own)):
        pass
    config = routed.inner.asked[0].runtime_config
    assert config.image == "acme/sim"
    assert config.resources.memory_mb == 9
    again: Any = await places.provider_for(demo(env="sim-2"))
    assert again.inner is routed.inner
    far: Any = await places.provider_for(demo(env="far"))
    assert satisfies(far, Delegate)
    assert not satisfies(far, Provider)
    assert (await far.run(demo(env="far"), None)).runtime_config.image == "acme/far"
    assert isinstance(await places.provider_for(demo(folder)), SubprocessRuntime)


async def test_a_route_that_cannot_give_what_a_row_needs_is_refused(folder: Path, host: PluginHost) -> None:
    (folder / "hud.toml").write_text('[runtime.env."demo"]\nuse = "local"\n')
    with pytest.raises(UnsupportedConfigError, match=r"local cannot provide resources\.gpu"):
        await provider_for(demo(folder, runtime_config=GPU), folder=folder, host=host)


async def test_a_broken_hud_toml_is_named_with_its_line(folder: Path, host: PluginHost) -> None:
    (folder / "hud.toml").write_text('[runtime]\ndefalt = "local"\n')
    with pytest.raises(ConfigError, match=r"hud\.toml:2.*default"):
        await provider_for(demo(folder), folder=folder, host=host)


async def test_a_hook_decides_before_the_declaration(folder: Path, host: PluginHost) -> None:
    chosen = await provider_for(demo(folder, env="hooked"), folder=folder, host=host)
    assert type(chosen).__name__ == "Cloud"


async def test_a_declared_row_runs_from_its_file(folder: Path, host: PluginHost) -> None:
    places = Placements(folder=folder, host=host)
    first = await places.provider_for(demo(folder))
    assert isinstance(first, LocalRuntime)
    assert str(first.source) == str(folder / "env.py")
    assert await places.provider_for(demo(folder)) is first


async def test_a_live_environment_runs_from_its_file_or_here(folder: Path, host: PluginHost) -> None:
    env = Environment("demo")
    env.source_file = folder / "env.py"
    filed = await provider_for(Task(env="demo", id="x", source=env), folder=folder, host=host)
    assert isinstance(filed, LocalRuntime)
    assert filed.is_file
    env.source_file = None
    here = await provider_for(Task(env="demo", id="x", source=env), folder=folder, host=host)
    assert isinstance(here, LocalRuntime)
    assert not here.is_file


async def test_a_row_from_data_needs_a_decision(folder: Path, host: PluginHost) -> None:
    with pytest.raises(PlacementUndecidedError) as caught:
        await provider_for(demo(), folder=folder, host=host)
    for choice in ("LocalRuntime", "tcp://", "cloud", '[runtime.env."demo"]'):
        assert choice in str(caught.value)
    with pytest.raises(SourceError, match="no file that declares it"):
        await provider_for(demo(), "local", folder=folder, host=host)


async def test_a_job_enters_what_must_be_entered(host: PluginHost) -> None:
    shared = Shared(Cloud(), width=2)
    async with Placements(shared, host=host) as places:
        provider: Any = await places.provider_for(demo())
        async with provider(demo()) as placed:
            assert placed.url == "tcp://127.0.0.1:1"
    with pytest.raises(UsageError, match="must be entered"):
        async with shared(demo()):
            pass


def test_features_name_what_is_missing_as_the_user_wrote_it() -> None:
    config = RuntimeConfig(image="acme", resources=RuntimeResources(cpu=2, gpu=RuntimeGPU()))
    assert Features(image=True).missing(config) == ["resources.cpu", "resources.gpu"]
