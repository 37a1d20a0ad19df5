"""`@hud.instrument` on both sides of the wire: the spans are kept with their rollout."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import hud
from hud.eval import Job, LocalRuntime, Taskset
from hud.eval.run import Run
from hud.telemetry import (
    INFO_KEY,
    EnvironmentSpans,
    get_current_trace_id,
    instrument,
    record_spans_in,
    take_in,
)
from hud.types.trace import Trace

pytestmark = pytest.mark.anyio

ENV = """
import hud
from hud.environment import Environment

env = Environment("sums")

@hud.instrument
def seed(a: int) -> dict:
    return {"a": a}

@hud.instrument(name="check", record_args=False)
async def check(answer: str, a: int) -> float:
    return same(answer, str(a + 1))

@hud.instrument
def same(left: str, right: str) -> float:
    return float(left == right)

@env.template()
async def add(a: int = 1):
    seed(a)
    answer = yield f"{a} + 1?"
    yield await check(answer, a)
"""


@hud.instrument(name="think")
async def think(text: str) -> str:
    return str(int(text.split(maxsplit=1)[0]) + 1)


async def adds(run: Run) -> str:
    return await think(run.prompt_text)


@pytest.mark.slow
async def test_spans_of_agent_and_environment_are_in_one_trace(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    taskset = Taskset.from_file(tmp_path / "env.py")
    job = await taskset.run(adds, runtime=LocalRuntime(tmp_path / "env.py"), jobs_dir=tmp_path / "jobs")
    [run] = job.runs
    assert run.reward == 1.0
    spans = {span["name"]: span for span in run.trace.extra["spans"]}
    assert set(spans) == {"think", "seed", "check", "same"}
    assert "side" not in spans["think"]
    assert {spans[name]["side"] for name in ("seed", "check", "same")} == {"environment"}
    assert spans["same"]["parent_span_id"] == spans["check"]["span_id"]
    assert spans["seed"]["args"] == {"a": 1}
    assert "args" not in spans["check"]
    assert all(span["ended_at"] >= span["started_at"] for span in spans.values())
    assert INFO_KEY not in json.dumps(run.grade.raw), "the verdict is the grader's alone"
    assert INFO_KEY not in json.dumps([str(step) for step in run.trace.steps])
    kept = Job.load(job.path or "").runs[0]
    assert kept.trace.extra["spans"] == run.trace.extra["spans"]


async def test_sessions_of_one_environment_keep_their_spans_apart(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(ENV)
    env = Taskset.from_file(tmp_path / "env.py")
    taskset = Taskset(
        "many",
        [row.model_copy(update={"args": {"a": n}, "slug": f"add-{n}"}) for row in env for n in range(4)],
    )
    job = await taskset.run(adds, runtime=LocalRuntime(tmp_path / "env.py"), jobs_dir=False)
    for run in job.runs:
        seeds = [span for span in run.trace.extra["spans"] if span["name"] == "seed"]
        assert [span["args"] for span in seeds] == [run.args]


async def test_a_span_says_what_was_raised_and_its_error_passes_on() -> None:
    trace = Trace()
    record_spans_in(trace)

    @instrument
    def breaks() -> None:
        raise ValueError("bad luck")

    with pytest.raises(ValueError, match="bad luck"):
        breaks()
    assert trace.extra["spans"][0]["error"] == "ValueError: bad luck"
    assert get_current_trace_id() == trace.trace_id


async def test_outside_a_rollout_a_function_is_only_called() -> None:
    assert await asyncio.create_task(think("3 + 1?"), context=__import__("contextvars").Context()) == "4"


async def test_what_an_environment_tells_is_bounded_and_json() -> None:
    held = EnvironmentSpans()
    held.extra["spans"] = [
        {"name": "f", "span_id": f"{n:016x}", "args": {"x": object()}, "started_at": 1.0, "ended_at": 2.0}
        for n in range(2_500)
    ]
    told = held.told()
    assert told is not None
    assert len(json.dumps(told)) < 512 * 1024
    assert len(told["spans"]) + told["dropped"] == 2_500
    assert EnvironmentSpans().told() is None


async def test_a_reply_that_holds_no_spans_adds_none() -> None:
    trace = Trace()
    odd: list[Any] = ["no", {"spans": "x"}, {"spans": [1, {}, {"name": 3}]}, {"dropped": -1}, None]
    for told in odd:
        take_in(trace, told)
    assert trace.extra == {}
