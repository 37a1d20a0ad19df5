"""The contract of a runtime: it places an environment, gives its address, and takes everything away again."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hud.errors import HudError, NotAuthorizedError, UnsupportedConfigError
from hud.runtime.contract import Features, Provider, Runtime
from hud.runtime.ledger import ledger
from hud.runtime.output import OUTPUT
from hud.runtime.placing import PLACED_FOR, PlacedFor
from hud.testing.contract import Contract, assert_nothing_left, asynchronous
from hud.testing.processes import descendants
from hud.types import (
    ComposeProject,
    RuntimeConfig,
    RuntimeGPU,
    RuntimeLimits,
    RuntimeResources,
    RuntimeTPU,
    Task,
)
from hud.wire.client import connect

MakeProvider = Callable[[Path], Provider]

ENVIRONMENT = '''"""The environment the runtime contract places."""

import os
import time

from hud.environment import Environment

env = Environment("contract")
starts = 0


@env.template()
async def echo(word: str = "hello"):
    answer = yield f"Reply with the word {word}."
    yield 1.0 if answer == word else 0.0


@env.template()
async def count_starts():
    global starts
    starts += 1
    yield str(starts)
    yield 1.0


@env.template()
async def variable(name: str):
    yield os.environ.get(name, "unset")
    yield 1.0


@env.template()
async def speaks(word: str):
    yield "say it"
    print(word, flush=True)
    yield 1.0


@env.template()
async def end_the_process():
    yield "The process ends when this is graded."
    os._exit(7)
'''
BROKEN = 'raise RuntimeError("broken on purpose")\n'
SLOW = "import time\ntime.sleep(600)\n"

UNSUPPORTED: dict[str, RuntimeConfig] = {
    "image": RuntimeConfig(image="acme/image"),
    "compose": RuntimeConfig(compose=ComposeProject(document={"services": {"main": {"image": "acme"}}})),
    "cpu": RuntimeConfig(resources=RuntimeResources(cpu=1.0)),
    "memory": RuntimeConfig(resources=RuntimeResources(memory_mb=256)),
    "storage": RuntimeConfig(resources=RuntimeResources(storage_mb=256)),
    "gpu": RuntimeConfig(resources=RuntimeResources(gpu=RuntimeGPU(type="H100"))),
    "tpu": RuntimeConfig(resources=RuntimeResources(tpu=RuntimeTPU(type="v5e"))),
    "os": RuntimeConfig(resources=RuntimeResources(os="windows")),
    "run_timeout": RuntimeConfig(limits=RuntimeLimits(run_timeout_s=60.0)),
}


class RuntimeContract(Contract):
    """Inherit it, supply `make_provider`, and declare `features`.

    `make_provider(source)` returns a provider of the environment declared in the file `source`: `ENVIRONMENT`, or one
    that fails. A runtime of images builds one from that file. `leftovers` lists what a placement may leave behind;
    by default the descendants of this process.
    """

    features: ClassVar[Features] = Features()
    ready_timeout: ClassVar[float] = 60.0
    """Seconds a placement may take to become ready."""
    at_once: ClassVar[int] = 32
    """How many placements the row for concurrency asks for together."""
    cancelled_at: ClassVar[Collection[float]] = (
        0.0,
        0.02,
        0.05,
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
        0.97,
    )
    """Points of a start, as parts of what a whole one takes, at which the row for cancellation ends it."""
    captures_output: ClassVar[bool] = True
    """Whether what the environment prints is written to the run's log (`hud.runtime.output.OUTPUT`)."""

    @pytest.fixture
    def make_provider(self) -> MakeProvider:
        """Supply this: a function from a source file to a provider."""
        pytest.fail(f"{type(self).__name__} must supply the fixture make_provider")

    def leftovers(self) -> Collection[str]:
        """Return what exists outside this process on behalf of placements, as names."""
        return descendants()

    def labels(self, runtime: Runtime) -> Mapping[str, str] | None:  # noqa: ARG002 - for those that have them
        """Return what the placement says of itself where it runs; None for a runtime whose placements say nothing."""
        return None

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """The contract's environment."""
        return _written(tmp_path, ENVIRONMENT)

    @asynccontextmanager
    async def place(
        self, provider: Provider, source: Path, config: RuntimeConfig | None = None
    ) -> AsyncIterator[Runtime]:
        """Place the contract's row; a provider that is a context itself is entered around it, as a job does."""
        async with AsyncExitStack() as stack:
            if isinstance(provider, AbstractAsyncContextManager):
                await stack.enter_async_context(provider)
            yield await stack.enter_async_context(provider(_task(source, config)))

    @asynchronous
    async def test_places_an_environment_that_answers_and_grades(
        self, make_provider: MakeProvider, source: Path
    ) -> None:
        async with self.place(make_provider(source), source) as runtime:
            assert isinstance(runtime, Runtime)
            async with connect(runtime, ready_timeout=self.ready_timeout) as client:
                assert {entry["id"] for entry in await client.list_tasks()} >= {"echo", "variable"}
                reply = await client.start_task("echo", {"word": "moon"})
                assert reply["prompt"] == "Reply with the word moon."
                assert (await client.grade("moon"))["score"] == 1.0

    @asynchronous
    async def test_places_several_at_once_that_share_nothing(
        self, make_provider: MakeProvider, source: Path
    ) -> None:
        provider = make_provider(source)

        async def place() -> tuple[str, str]:
            async with (
                provider(_task(source)) as runtime,
                connect(runtime, ready_timeout=self.ready_timeout) as client,
            ):
                prompt = (await client.start_task("count_starts"))["prompt"]
                await client.grade(None)
                return runtime.url, prompt

        async with AsyncExitStack() as stack:
            if isinstance(provider, AbstractAsyncContextManager):
                await stack.enter_async_context(provider)
            async with asyncio.TaskGroup() as group:
                placing = [group.create_task(place()) for _ in range(3)]
        found = [task.result() for task in placing]
        if not self.features.isolated:
            pytest.skip("the runtime declares no isolation between rollouts")
        assert [prompt for _, prompt in found] == ["1", "1", "1"]

    @asynchronous
    async def test_places_many_at_once_and_takes_them_all_away(
        self, make_provider: MakeProvider, source: Path
    ) -> None:
        before = self.leftovers()
        provider = make_provider(source)
        urls: list[str] = []

        async def one(number: int) -> None:
            async with (
                provider(_task(source)) as runtime,
                connect(runtime, ready_timeout=self.ready_timeout) as client,
            ):
                urls.append(runtime.url)
                reply = await client.start_task("echo", {"word": str(number)})
                assert reply["prompt"] == f"Reply with the word {number}."
                assert (await client.grade(str(number)))["score"] == 1.0

        async with AsyncExitStack() as stack:
            if isinstance(provider, AbstractAsyncContextManager):
                await stack.enter_async_context(provider)
            async with asyncio.TaskGroup() as group:
                for number in range(self.at_once):
                    group.create_task(one(number))
        assert len(urls) == self.at_once
        await assert_nothing_left(self.leftovers, before, f"{self.at_once} placements were released")

    @asynchronous
    async def test_writes_what_the_environment_prints_to_the_run_s_log(
        self, make_provider: MakeProvider, source: Path, tmp_path: Path
    ) -> None:
        if not self.captures_output:
            pytest.skip("the runtime declares that it captures no output")
        log = tmp_path / "run.log"
        before = OUTPUT.set(log)
        try:
            async with (
                self.place(make_provider(source), source) as runtime,
                connect(runtime, ready_timeout=self.ready_timeout) as client,
            ):
                await client.start_task("speaks", {"word": "printed-by-author"})
                await client.grade(None)
        finally:
            OUTPUT.reset(before)
        written = log.read_text(errors="replace") if log.exists() else ""
        assert "printed-by-author" in written, f"the run's log has {written!r}"

    @asynchronous
    async def test_a_placement_says_whose_it_is(self, make_provider: MakeProvider, source: Path) -> None:
        before = PLACED_FOR.set(PlacedFor("job-of-the-contract", "run-of-the-contract"))
        try:
            async with self.place(make_provider(source), source) as runtime:
                labels = await asyncio.to_thread(self.labels, runtime)
        finally:
            PLACED_FOR.reset(before)
        if labels is None:
            assert not self.features.remote, "a placement on another machine needs labels to be found by"
            pytest.skip("placements of this runtime have no labels")
        assert labels.get("hud.owner") == ledger().owner
        assert labels.get("hud.job") == "job-of-the-contract"
        assert labels.get("hud.run") == "run-of-the-contract"

    @asynchronous
    async def test_takes_everything_away_when_the_body_ends(
        self, make_provider: MakeProvider, source: Path
    ) -> None:
        before = self.leftovers()
        async with (
            self.place(make_provider(source), source) as runtime,
            connect(runtime, ready_timeout=self.ready_timeout) as client,
        ):
            await client.list_tasks()
        await assert_nothing_left(self.leftovers, before, "the placement was released")
        await _assert_unreachable(runtime)

    @asynchronous
    async def test_takes_everything_away_when_the_body_raises(
        self, make_provider: MakeProvider, source: Path
    ) -> None:
        before = self.leftovers()
        with pytest.raises(ZeroDivisionError):
            async with self.place(make_provider(source), source) as runtime:
                raise ZeroDivisionError
        await assert_nothing_left(self.leftovers, before, "the body raised")
        await _assert_unreachable(runtime)

    @asynchronous
    async def test_takes_everything_away_when_cancelled_in_the_body(
        self, make_provider: MakeProvider, source: Path
    ) -> None:
        before = self.leftovers()
        entered = asyncio.Event()
        placed: list[Runtime] = []

        async def hold() -> None:
            async with self.place(make_provider(source), source) as runtime:
                placed.append(runtime)
                entered.set()
                await asyncio.Event().wait()

        holding = asyncio.create_task(hold())
        holding.add_done_callback(lambda _: entered.set())
        await entered.wait()
        if holding.done():
            holding.result()
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        await assert_nothing_left(self.leftovers, before, "the body was cancelled")
        await _assert_unreachable(placed[0])

    @asynchronous
    async def test_takes_everything_away_when_cancelled_while_starting(
        self, make_provider: MakeProvider, source: Path
    ) -> None:
        before = self.leftovers()
        loop = asyncio.get_running_loop()

        async def place() -> None:
            async with self.place(make_provider(source), source):
                pass

        began = loop.time()
        await place()
        whole_s = loop.time() - began
        for part in self.cancelled_at:
            placing = asyncio.create_task(place())
            await asyncio.sleep(part * whole_s)
            placing.cancel()
            await asyncio.wait([placing])
            assert placing.cancelled() or placing.exception() is None, (
                f"cancelled at {part:.0%} of its start, it raised {placing.exception()!r}"
            )
        await assert_nothing_left(self.leftovers, before, "the start was cancelled")

    @pytest.mark.parametrize("feature", sorted(UNSUPPORTED))
    @asynchronous
    async def test_refuses_what_it_cannot_give_before_creating_anything(
        self, make_provider: MakeProvider, source: Path, feature: str
    ) -> None:
        if getattr(self.features, feature):
            pytest.skip(f"the runtime declares {feature}")
        before = set(self.leftovers())
        with pytest.raises(UnsupportedConfigError):
            async with self.place(make_provider(source), source, UNSUPPORTED[feature]):
                pass
        assert not set(self.leftovers()) - before

    @asynchronous
    async def test_an_environment_that_fails_to_start_is_an_error_with_its_output(
        self, make_provider: MakeProvider, tmp_path: Path
    ) -> None:
        source = _written(tmp_path, BROKEN)
        before = self.leftovers()
        with pytest.raises(HudError) as caught:
            async with (
                self.place(make_provider(source), source) as runtime,
                connect(runtime, ready_timeout=self.ready_timeout),
            ):
                pass
        assert "broken on purpose" in str(caught.value)
        await assert_nothing_left(self.leftovers, before, "the start failed")

    @asynchronous
    async def test_an_environment_that_never_becomes_ready_is_given_up(
        self, make_provider: MakeProvider, tmp_path: Path
    ) -> None:
        if not self.features.startup_timeout:
            pytest.skip("the runtime declares no startup_timeout")
        source = _written(tmp_path, SLOW)
        before = self.leftovers()
        config = RuntimeConfig(limits=RuntimeLimits(startup_timeout_s=2.0))
        with pytest.raises(HudError):
            async with self.place(make_provider(source), source, config) as runtime, connect(runtime):
                pass
        await assert_nothing_left(self.leftovers, before, "the start was given up")

    @asynchronous
    async def test_an_environment_that_dies_is_noticed(
        self, make_provider: MakeProvider, source: Path
    ) -> None:
        before = self.leftovers()
        async with (
            self.place(make_provider(source), source) as runtime,
            connect(runtime, ready_timeout=self.ready_timeout) as client,
        ):
            await client.start_task("end_the_process")
            with pytest.raises(HudError):
                async with asyncio.timeout(30):
                    await client.grade("now")
        await assert_nothing_left(self.leftovers, before, "the environment died")

    @asynchronous
    async def test_secrets_of_the_address_stay_out_of_sight(
        self, make_provider: MakeProvider, source: Path
    ) -> None:
        async with self.place(make_provider(source), source) as runtime:
            token = runtime.params.get("token")
            if token is None:
                assert not self.features.remote, "a placement on another machine needs a token"
                pytest.skip("the placement uses no token")
            assert token not in repr(runtime)
            assert token.encode() not in pickle.dumps(Runtime(runtime.url, _plain(runtime)))
            async with connect(runtime, ready_timeout=self.ready_timeout) as client:
                for name in ("HUD_TOKEN", "HUD_TOKEN_FILE"):
                    reply = await client.start_task("variable", {"name": name})
                    assert reply["prompt"] == "unset", f"author code can read {name}"
                    await client.cancel()

    @asynchronous
    async def test_a_wrong_token_opens_nothing(self, make_provider: MakeProvider, source: Path) -> None:
        async with self.place(make_provider(source), source) as runtime:
            if "token" not in runtime.params:
                pytest.skip("the placement uses no token")
            wrong = Runtime(runtime.url, {**_plain(runtime), "token": "0" * 64})
            with pytest.raises(NotAuthorizedError):
                async with connect(wrong, ready_timeout=self.ready_timeout):
                    pass


def _written(folder: Path, text: str) -> Path:
    path = folder / "env.py"
    path.write_text(text, encoding="utf-8")
    return path


def _task(source: Path, config: RuntimeConfig | None = None) -> Task:
    return Task(env="contract", id="echo", runtime_config=config, source=str(source))


def _plain(runtime: Runtime) -> dict[str, Any]:
    return {key: value for key, value in runtime.params.items() if key != "process"}


async def _assert_unreachable(runtime: Runtime) -> None:
    gone = Runtime(runtime.url, {**_plain(runtime), "ready_timeout": 0.2})
    try:
        async with connect(gone, ready_timeout=0.2) as client:
            await client.list_tasks()
    except (HudError, OSError):
        return
    pytest.fail(f"{runtime.url} still answers after its release")
