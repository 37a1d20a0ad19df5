"""Sinks that are slow, dead or stuck: rollouts go on as if there were none, and what was lost is told."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from hud.environment import Environment
from hud.eval import LocalRuntime, Taskset, sinkfeed
from hud.eval.run import Run
from hud.eval.sinkfeed import SinkFeed
from hud.plugins import OpenSink, hookimpl
from hud.testing import isolated_host

pytestmark = pytest.mark.anyio


class Keeps:
    """Takes everything."""

    name = "keeper"

    def __init__(self) -> None:
        self.got: list[str] = []
        self.threads: set[int] = set()

    async def job(self, record: Mapping[str, Any]) -> None:
        self._take("job")

    async def rollout(self, record: Mapping[str, Any]) -> None:
        self._take(str(record["n"]))

    async def close(self) -> None:
        self._take("closed")

    def _take(self, what: str) -> None:
        self.got.append(what)
        self.threads.add(threading.get_ident())


class Never(Keeps):
    """Waits for ever on each rollout."""

    async def rollout(self, record: Mapping[str, Any]) -> None:
        await asyncio.Event().wait()


class Stuck(Keeps):
    """Blocks its thread until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    async def rollout(self, record: Mapping[str, Any]) -> None:
        self.let_go.wait(60)


class Dead(Keeps):
    async def rollout(self, record: Mapping[str, Any]) -> None:
        raise OSError("connection refused")


class Leaves(Keeps):
    async def rollout(self, record: Mapping[str, Any]) -> None:
        raise SystemExit(3)


class Counts(Keeps):
    def lost(self) -> str | None:
        return "7 spans were lost"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinkfeed, "CLOSE_S", 0.6)
    monkeypatch.setattr(sinkfeed, "LAST_S", 0.2)
    monkeypatch.setattr(sinkfeed, "MOST_WAITING", 5)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    sink = Stuck()
    yield sink
    sink.let_go.set()


def as_it_is(kind: str, record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record


async def told(sink: Any, rollouts: int) -> str | None:
    feed = SinkFeed(sink, as_it_is)
    feed.put("job", {})
    for number in range(rollouts):
        feed.put("rollout", {"n": number})
    feed.put("job", {"ended_at": 1.0})
    return await feed.close()


async def test_a_sink_is_told_everything_in_order_on_a_thread_of_its_own() -> None:
    sink = Keeps()
    assert await told(sink, 3) is None
    assert sink.got == ["job", "0", "1", "2", "job", "closed"]
    assert len(sink.threads) == 1
    assert sink.threads != {threading.get_ident()}


@pytest.mark.slow
async def test_a_sink_that_never_answers_loses_what_it_did_not_take_and_is_still_closed() -> None:
    sink = Never()
    said = await told(sink, 4)
    assert said is not None
    assert "keeper: 4 of 4 rollouts did not reach it" in said
    assert sink.got[-1] == "closed"


@pytest.mark.slow
async def test_a_sink_that_blocks_its_thread_is_left_behind(stuck: Stuck) -> None:
    said = await told(stuck, 4)
    assert said is not None
    assert "still waited at the end" in said


@pytest.mark.slow
async def test_more_than_may_wait_is_dropped_and_counted(stuck: Stuck) -> None:
    said = await told(stuck, 50)
    assert said is not None
    assert "came while too many waited" in said
    assert (
        sum(int(word) for word in said.split("(")[1].split(")")[0].replace(",", "").split() if word.isdigit())
        >= 49
    )


async def test_a_dead_sink_is_counted_with_its_last_words() -> None:
    said = await told(Dead(), 3)
    assert said is not None
    assert "3 of 3 rollouts did not reach it (3 refused); last: OSError: connection refused" in said


async def test_a_sink_that_exits_ends_no_more_than_its_own_thread() -> None:
    said = await told(Leaves(), 3)
    assert said is not None
    assert "SystemExit: 3" in said


async def test_what_a_sink_counted_itself_is_told() -> None:
    assert await told(Counts(), 1) == "a sink failed: keeper: 7 spans were lost"


@pytest.mark.slow
async def test_a_job_with_a_stuck_sink_ends_as_usual_and_keeps_what_was_lost(
    stuck: Stuck, caplog: pytest.LogCaptureFixture
) -> None:
    env = Environment("sums")

    @env.template()
    async def add(a: int = 1) -> Any:
        answer = yield f"{a}"
        yield float(answer == str(a))

    class Sinks:
        @hookimpl
        async def hud_open_sink(self, event: OpenSink) -> Any:
            return stuck

    async def echo(run: Run) -> str:
        return run.prompt_text

    with isolated_host(Sinks()), caplog.at_level(logging.WARNING):
        taskset = Taskset("sums", [add(a=number) for number in range(20)])
        job = await taskset.run(echo, runtime=LocalRuntime(lambda task: env))
    assert (job.reward, len(job.runs)) == (1.0, 20)
    [remark] = job.remarks
    assert "keeper" in remark
    assert remark in caplog.text
    assert job.model_dump(runs=False)["remarks"] == [remark]
