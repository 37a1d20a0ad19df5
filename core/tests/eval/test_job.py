"""Jobs: scheduling, order, group, streams, limits, ends."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from hud.errors import ConfigError, PlacementUndecidedError, StoreError, TasksetError, UsageError
from hud.eval import Deadlines, Job, Limits, Run, Taskset
from hud.eval.session import JobSession
from hud.runtime.contract import Runtime
from hud.types import AgentStep, Task, Usage

pytestmark = pytest.mark.anyio


async def adds(run: Run) -> str:
    return str(run.args.get("a", 1) + run.args.get("b", 2))


async def waits(run: Run) -> None:
    await asyncio.Event().wait()


def rows(count: int) -> list[Task]:
    return [Task(env="desk", id="add", args={"a": a}) for a in range(count)]


async def test_a_job_has_every_row_in_order_each_group_together(place: Any) -> None:
    async def uneven(run: Run) -> str:
        await asyncio.sleep(0.02 if run.args["a"] % 2 == 0 else 0)
        return await adds(run)

    taskset = Taskset("sums", rows(5))
    job = await taskset.run(uneven, runtime=place, group=3, max_concurrent=4)
    assert [run.args["a"] for run in job.runs] == [a for a in range(5) for _ in range(3)]
    assert [run.index for run in job.runs] == list(range(15))
    groups = [{run.group_id for run in runs} for runs in job.results.values()]
    assert [len(ids) for ids in groups] == [1] * 5
    assert len(set.union(*groups)) == 5
    assert (job.reward, job.errors, job.group, job.name) == (1.0, [], 3, "sums")
    assert place.most_open <= 4


@pytest.mark.parametrize("bound", [1, 3, 50])
async def test_no_more_than_max_concurrent_run_at_once(place: Any, bound: int) -> None:
    await Taskset("sums", rows(20)).run(adds, runtime=place, max_concurrent=bound)
    assert place.most_open <= bound
    assert place.placed == 20
    assert place.open == 0


async def test_one_that_fails_disturbs_no_other(place: Any) -> None:
    tasks = [*rows(2), Task(env="desk", id="raises_first"), Task(env="desk", id="raises_second")]
    job = await Taskset("mixed", tasks).run(adds, runtime=place)
    assert [run.reward for run in job.runs] == [1.0, 1.0, None, None]
    assert job.reward == 1.0, "an error is no 0"
    assert [run.slug for run in job.errors] == ["raises_first", "raises_second"]


async def test_a_job_without_a_grade_has_no_reward(place: Any) -> None:
    job = await Taskset("broken", [Task(env="desk", id="raises_first")]).run(adds, runtime=place)
    assert job.reward is None
    assert job.model_dump()["mean_reward"] is None


async def test_the_summary_is_per_task(place: Any) -> None:
    turns = itertools.count()

    async def every_other(run: Run) -> str:
        return await adds(run) if next(turns) % 2 else "wrong"

    tasks = [*rows(1), Task(env="desk", id="raises_first")]
    job = await Taskset("mixed", tasks).run(every_other, runtime=place, group=4, max_concurrent=1)
    summary = job.summary()
    added, broken = summary.tasks.values()
    assert (added.mean, added.errors, added.pass_at(1), added.runs) == (0.5, 0, 0.5, 4)
    assert added.pass_at(2) == pytest.approx(1 - 1 / 6)
    assert (broken.mean, broken.errors, broken.pass_at(1)) == (None, 4, None)
    assert "raises_first" in str(summary)
    assert str(summary).splitlines()[-1].endswith(" s"), "what the job took is in the last line"
    dumped = job.model_dump()
    assert {"job_id", "source", "run_count", "mean_reward", "error_count", "elapsed_seconds", "runs"} <= set(
        dumped
    )
    assert json.loads(job.model_dump_json())["summary"]["tasks"][0]["pass_at"]["1"] == 0.5


async def test_runs_are_streamed_as_they_end(place: Any) -> None:
    gate = asyncio.Event()

    async def first_is_slow(run: Run) -> str:
        if run.args["a"] == 0:
            await gate.wait()
        return await adds(run)

    seen = []
    stream = Taskset("sums", rows(3)).stream(first_is_slow, runtime=place, max_concurrent=2)
    async for run in stream:
        seen.append(run.args["a"])
        if len(seen) == 2:
            gate.set()
    assert seen == [1, 2, 0]
    assert stream.job.reward == 1.0
    assert not stream.job.cancelled
    assert len(stream.job.runs) == 0, "runs that were given out are not kept"


async def test_leaving_the_stream_stops_the_job(place: Any) -> None:
    async with Taskset("endless", endless()).stream(adds, runtime=place, max_concurrent=2) as stream:
        async for _ in stream:
            break
    assert place.open == 0
    assert stream.job.cancelled


def endless() -> Iterator[Task]:
    return (Task(env="desk", id="add", args={"a": a}) for a in itertools.count())


async def test_an_endless_source_is_read_only_as_far_as_needed(place: Any) -> None:
    taken = 0

    def source() -> Iterator[Task]:
        nonlocal taken
        for task in endless():
            taken += 1
            yield task

    job = await Taskset("endless", source()).run(adds, runtime=place, limit=5, group=2)
    assert len(job.runs) == 10
    assert taken == 5


async def test_rows_may_come_from_an_async_generator(place: Any) -> None:
    async def source() -> AsyncIterator[Task]:
        for task in rows(3):
            await asyncio.sleep(0)
            yield task

    job = await Taskset("later", source()).run(adds, runtime=place)
    assert [run.args["a"] for run in job.runs] == [0, 1, 2]


async def test_what_the_source_of_rows_raises_ends_the_job_and_is_raised(place: Any) -> None:
    def source() -> Iterator[Task]:
        yield from rows(2)
        raise TasksetError("row 3 is broken")

    job = Job()
    with pytest.raises(TasksetError, match="row 3 is broken"):
        await Taskset("broken", source()).run(adds, runtime=place, job=job)
    assert place.open == 0
    assert len(Job.load(job.id).runs) == len(job.runs)


async def test_cancelling_keeps_what_is_done_and_gives_back_the_rest(place: Any) -> None:
    acting = asyncio.Event()

    async def some_wait(run: Run) -> str:
        if run.args["a"] >= 2:
            acting.set()
            await asyncio.Event().wait()
        return await adds(run)

    job = Job(name="cut short")
    taskset = Taskset("sums", rows(10))
    task = asyncio.ensure_future(taskset.run(some_wait, runtime=place, max_concurrent=1, job=job))
    await acting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.open == 0
    assert [(run.reward, run.trace.status) for run in job.runs] == [
        (1.0, "completed"),
        (1.0, "completed"),
        (None, "cancelled"),
    ]
    assert job.cancelled
    assert job.ended_because == "cancelled"
    kept = Job.load(job.id)
    assert [run.reward for run in kept.runs] == [1.0, 1.0, None]
    assert kept.cancelled


async def test_stopping_returns_what_is_done(place: Any) -> None:
    session = JobSession(Taskset("sums", rows(10)), waits, keep_runs=True, runtime=place, max_concurrent=2)

    async def stop_soon() -> None:
        while session.in_flight < 2:
            await asyncio.sleep(0.001)
        session.stop("enough")

    stopping = asyncio.ensure_future(stop_soon())
    await session.run()
    await stopping
    assert [run.trace.status for run in session.job.runs] == ["cancelled", "cancelled"]
    assert session.job.ended_because == "enough"
    assert place.open == 0


async def test_stopping_before_anything_began_starts_nothing(place: Any) -> None:
    session = JobSession(Taskset("sums", rows(10)), adds, keep_runs=True, runtime=place)
    session.stop("changed my mind")
    await session.run()
    assert place.placed == 0
    assert session.job.cancelled


async def test_stopping_interrupts_a_placement_that_is_being_entered() -> None:
    entering = asyncio.Event()
    left: list[str] = []

    class Slow:
        async def __aenter__(self) -> Self:
            entering.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.append("entering")
            return self

        async def __aexit__(self, *exc: object) -> None:
            left.append("exit")

        @asynccontextmanager
        async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
            yield Runtime("local:")

    task = asyncio.ensure_future(Taskset("sums", rows(2)).run(adds, runtime=Slow()))
    await entering.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == ["entering"]


async def test_a_provider_that_is_a_context_is_entered_once_for_the_job(place: Any) -> None:
    entered: list[str] = []

    class Held:
        async def __aenter__(self) -> Self:
            entered.append("in")
            return self

        async def __aexit__(self, *exc: object) -> None:
            entered.append("out")
            assert place.open == 0

        def __call__(self, task: Task) -> Any:
            return place(task)

    await Taskset("sums", rows(5)).run(adds, runtime=Held())
    assert entered == ["in", "out"]


@pytest.mark.slow
@pytest.mark.parametrize("point", ["enter", "exit"])
async def test_a_shared_placement_that_hangs_ends_no_job(place: Any, point: str) -> None:
    class Hanging:
        async def __aenter__(self) -> Self:
            if point == "enter":
                await asyncio.Event().wait()
            return self

        async def __aexit__(self, *exc: object) -> None:
            await asyncio.Event().wait()

        def __call__(self, task: Task) -> Any:
            return place(task)

    job = await Taskset("sums", rows(2)).run(
        adds, runtime=Hanging(), deadlines=Deadlines(place=0.1, release=0.1)
    )
    if point == "enter":
        assert [run.failure.type for run in job.runs if run.failure] == ["PhaseTimeoutError"] * 2
    else:
        assert job.reward == 1.0
        assert [(p.phase, p.type) for p in job.problems] == [("release", "TimeoutError")]
        assert Job.load(job.id).problems == job.problems


async def test_more_at_once_than_the_machine_holds_is_said_and_not_tried(
    place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from hud.runtime.admission import Capacity
    from hud.runtime.contract import Features

    class Local:
        features = Features()

        def __call__(self, task: Task) -> Any:
            return place(task)

    held = Capacity(3, "memory", 3, 100, 100, 100.0)
    monkeypatch.setattr("hud.runtime.admission.local_capacity", lambda: held)
    job = await Taskset("sums", rows(10)).run(adds, runtime=Local(), max_concurrent=500)
    assert job.reward == 1.0
    assert place.most_open <= 3
    assert "holds 3 environments at once (memory)" in caplog.text


@pytest.mark.slow
async def test_a_rollout_that_never_lets_go_is_left_behind_at_its_bound(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hud.eval.options.Options.hard_bound_s", property(lambda self: 0.2))
    freed = asyncio.Event()

    async def stubborn() -> None:
        while not freed.is_set():
            try:
                await freed.wait()
            except asyncio.CancelledError:
                continue

    place.on_release = stubborn
    job = await Taskset("stuck", rows(2)).run(adds, runtime=place, max_concurrent=1)
    freed.set()
    assert [run.failure.type for run in job.runs if run.failure] == ["PhaseTimeoutError"] * 2
    assert all("it was in release" in run.failure.message for run in job.runs if run.failure)
    while place.open:
        await asyncio.sleep(0)
    for _ in range(50):  # the rest of what was left behind: no await of its own waits for anything
        await asyncio.sleep(0)


async def test_a_job_drains_when_its_budget_is_used_up(place: Any) -> None:
    async def costly(run: Run) -> str:
        run.record(AgentStep(usage=Usage(10, 10, cost_usd=1.0)))
        return await adds(run)

    job = await Taskset("sums", rows(50)).run(
        costly, runtime=place, max_concurrent=1, limits=Limits(job_cost_usd=3.0)
    )
    assert len(job.runs) == 3
    assert [run.trace.stop_reason for run in job.runs] == ["done", "done", "budget"]
    assert all(run.grade.graded for run in job.runs), "what was achieved is graded"
    assert job.ended_because == "the job used 3 of job_cost_usd=3"
    assert not job.cancelled


async def test_a_job_out_of_time_starts_nothing_new(place: Any) -> None:
    async def slow(run: Run) -> str:
        await asyncio.sleep(0.05)
        return await adds(run)

    job = await Taskset("endless", endless()).run(
        slow, runtime=place, max_concurrent=2, limits=Limits(job_seconds=0.2)
    )
    assert 0 < len(job.runs) < 20
    assert all(run.reward == 1.0 for run in job.runs)
    assert "job_seconds" in (job.ended_because or "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": 0}, "group=0"),
        ({"max_concurrent": -1}, "max_concurrent=-1"),
        ({"limit": True}, "limit=True"),
        ({"retries": -1}, "retries=-1"),
        ({"rollout_timeout": 0}, "rollout_timeout=0"),
    ],
)
async def test_options_that_cannot_work_are_refused(place: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await Taskset("sums", rows(1)).run(adds, runtime=place, **options)


def test_limits_and_deadlines_are_above_zero() -> None:
    with pytest.raises(ConfigError, match="max_steps=0"):
        Limits(max_steps=0)
    with pytest.raises(ConfigError, match="deadline act=-1"):
        Deadlines(act=-1)


async def test_an_agent_that_cannot_be_called_is_refused(place: Any) -> None:
    nobody: Any = "claude"
    with pytest.raises(ConfigError, match="cannot be called"):
        await Taskset("sums", rows(1)).run(nobody, runtime=place)


async def test_an_agent_that_takes_no_run_is_refused_before_anything_starts(place: Any) -> None:
    async def alone() -> str:
        return "3"

    async def two(run: Run, more: str) -> str:
        return f"{run} {more}"

    sums = Taskset("sums", rows(1))
    for agent in (alone, two):
        wrong: Any = agent
        with pytest.raises(
            ConfigError, match=rf"cannot be called with a Run alone .*`async def {agent.__name__}\(run\)`"
        ):
            await sums.run(wrong, runtime=place)
    named: Any = "oracle"
    with pytest.raises(ConfigError, match=r"create_agent\('oracle'\) makes one"):
        await sums.run(named, runtime=place)
    assert place.placed == 0


async def test_rows_without_a_place_are_refused_before_anything_starts() -> None:
    with pytest.raises(PlacementUndecidedError, match="LocalRuntime"):
        await Taskset("sums", rows(1)).run(adds)
    assert not Path(".hud").exists()


async def test_a_generator_of_rows_is_run_once(place: Any) -> None:
    taskset = Taskset("once", iter(rows(2)))
    with pytest.raises(TasksetError, match="generator"):
        len(taskset)
    stream = taskset.stream(adds, runtime=place)
    assert len([run async for run in stream]) == 2
    with pytest.raises(UsageError, match="has run"):
        [run async for run in stream]


async def test_one_row_can_be_run_by_itself(place: Any) -> None:
    job = await rows(1)[0].run(adds, runtime=place, group=2)
    assert [run.reward for run in job.runs] == [1.0, 1.0]


async def test_a_live_environments_rows_need_no_runtime(env: Any) -> None:
    made = env.tasks["add"](a=4)
    made.source.source_file = None
    job = await Taskset("live", [made]).run(adds)
    assert job.reward == 1.0
    assert [run.runtime for run in job.runs] == ["local:"]


async def test_a_delegate_drives_the_whole_rollout(place: Any) -> None:
    class Elsewhere:
        async def run(self, task: Task, agent: Any, **options: Any) -> Run:
            done = Run(task=task, trace_id=options["trace_id"])
            done.finish({"score": 0.5})
            return done

    job = await Taskset("sums", rows(2)).run(adds, runtime=Elsewhere(), group=2)
    assert [(run.index, run.reward, run.job_id) for run in job.runs] == [(i, 0.5, job.id) for i in range(4)]


async def test_a_delegate_that_raises_fails_its_rollout_alone() -> None:
    class Elsewhere:
        async def run(self, task: Task, agent: Any, **options: Any) -> Run:
            raise OSError("the cloud is away")

    job = await Taskset("sums", rows(1)).run(adds, runtime=Elsewhere())
    assert job.reward is None
    assert job.runs[0].failure is not None
    assert job.runs[0].failure.message == "the cloud is away"


async def test_a_job_is_written_and_read_back_whole(place: Any) -> None:
    async def thinks(run: Run) -> str:
        run.record(AgentStep(content="three", usage=Usage(5, 2, cost_usd=0.1)))
        return await adds(run)

    tasks = [*rows(2), Task(env="desk", id="raises_second")]
    job = await Taskset("sums", tasks).run(thinks, runtime=place, group=2)
    assert job.path is not None
    assert job.path.is_relative_to(Path.cwd() / ".hud" / "jobs")
    read = Job.load(job.id[:8])
    assert read.model_dump(runs=False) == {**job.model_dump(runs=False), "path": str(read.path)}
    assert [r.model_dump() for r in read.runs[0].trace.steps] == [
        r.model_dump() for r in job.runs[0].trace.steps
    ]
    assert [run.failure for run in read.runs] == [run.failure for run in job.runs]
    assert read.runs[0].prompt == job.runs[0].prompt
    assert read.runs[0].grade == job.runs[0].grade


async def test_a_job_is_filled_by_several_calls(place: Any) -> None:
    job = await Job.start("training", group=2)
    await Taskset("first", rows(2)).run(adds, runtime=place, job=job)
    await Taskset("second", rows(3)).run(adds, runtime=place, job=job)
    assert [run.index for run in job.runs] == list(range(10))
    assert [run.args["a"] for run in job.runs] == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2]
    assert len(Job.load(job.id).runs) == 10


async def test_a_job_can_go_without_a_file(place: Any) -> None:
    job = await Taskset("sums", rows(1)).run(adds, runtime=place, jobs_dir=False)
    assert job.path is None
    assert not Path(".hud").exists()


async def test_a_disk_that_fails_ends_the_job_with_what_was_kept(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hud.store import opening

    really = opening.open_for_writing

    def small(path: Path) -> Any:
        db = really(path)
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        # What SQLite says then is what it says of a full disk. A page takes a few rollouts.
        db.execute(f"PRAGMA max_page_count = {pages + 16}")
        return db

    monkeypatch.setattr("hud.store.writer.open_for_writing", small)
    job = Job()
    with pytest.raises(StoreError, match="full"):
        await Taskset("sums", rows(500)).run(adds, runtime=place, max_concurrent=1, job=job)
    assert place.open == 0
    assert 0 < len(job.runs) < 500
    assert [run.index for run in Job.load(job.path or "").runs] == [run.index for run in job.runs]


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_hundred_thousand_rows_take_flat_memory() -> None:
    class Client:
        async def start_task(self, task_id: str, args: Any) -> dict[str, Any]:
            return {"prompt": "say anything"}

        async def grade(self, answer: Any, key: str | None = None) -> dict[str, Any]:
            return {"score": 1.0}

        async def bye(self) -> None: ...

    @asynccontextmanager
    async def connector(runtime: Any, task: Task, run: Run) -> AsyncIterator[Any]:
        yield Client()

    held: list[int] = []
    source = (Task(env="desk", id="add", slug=f"row-{i}") for i in range(100_000))
    stream = Taskset("many", source).stream(
        adds_nothing, runtime=Runtime("local:"), connector=connector, max_concurrent=32, jobs_dir=False
    )
    seen = 0
    async for _ in stream:
        seen += 1
        if seen in (20_000, 99_000):
            gc.collect()
            held.append(sys.getallocatedblocks())
    assert seen == 100_000
    assert stream.job.summary().runs == 100_000
    early, late = held
    assert late - early < 5_000, "nothing may grow with the rows"


async def adds_nothing(run: Run) -> str:
    return "nothing"


async def test_runs_beyond_what_is_kept_are_read_back_from_the_file(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job()
    job.runs.keep = 3
    await Taskset("sums", rows(8)).run(adds, runtime=place, job=job)
    assert len(job.runs) == 8
    assert [run.args["a"] for run in job.runs] == list(range(8))
    assert job.runs[7].trace.content == "9"
    assert [run.args["a"] for run in job.runs[5:]] == [5, 6, 7]
