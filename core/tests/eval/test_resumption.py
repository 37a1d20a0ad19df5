"""Going on with a loaded job, and trying again by class of failure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from hud.errors import ConfigError, UsageError
from hud.eval import Deadlines, Job, Run, Taskset
from hud.eval.resumption import Resumption
from hud.eval.retries import Retries
from hud.store.reader import JobFile
from hud.store.writer import JobWriter
from hud.types import Task
from hud.types.messages import Usage
from hud.types.trace import AgentStep

pytestmark = pytest.mark.anyio


def rows(count: int = 4) -> Taskset:
    return Taskset(
        "sums", [Task(env="desk", id="add", args={"a": n, "b": 1}, slug=f"add-{n}") for n in range(count)]
    )


async def right(run: Run) -> str:
    return str(run.args["a"] + run.args["b"])


def fails_on(*numbers: int) -> Callable[[Run], Any]:
    async def agent(run: Run) -> str:
        if run.args["a"] in numbers:
            raise RuntimeError("not this one")
        return await right(run)

    return agent


def refusing(place: Any, *numbers: int) -> None:
    """Have placements fail by their number."""

    async def fail(number: int) -> None:
        if number in numbers:
            raise ValueError("no such place")

    place.fail = fail


async def interrupted(place: Any, after: int, *, group: int = 1) -> Job:
    """Return the job, loaded, of a run that was cancelled once `after` runs had finished, the next in its act."""
    acting = asyncio.Event()

    async def agent(run: Run) -> str:
        if run.index >= after:
            run.record(AgentStep(usage=Usage(100, 10, cost_usd=0.5)))
            acting.set()
            await asyncio.Event().wait()
        return await right(run)

    job = Job(name="sums")
    running = asyncio.ensure_future(rows().run(agent, runtime=place, job=job, max_concurrent=1, group=group))
    await acting.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert job.path is not None
    return Job.load(job.path)


async def test_a_loaded_job_runs_what_is_left_in_the_same_file(place: Any) -> None:
    job = await interrupted(place, 2)
    path = job.path
    ran: list[str] = []

    async def agent(run: Run) -> str:
        ran.append(run.slug)
        return await right(run)

    done = await rows().run(agent, runtime=place, job=job)
    assert ran == ["add-2", "add-3"]
    assert done is job
    assert [(run.slug, run.reward) for run in done.runs] == [(f"add-{n}", 1.0) for n in range(4)]
    assert (done.summary().runs, done.reward, done.cancelled, done.ended_because) == (4, 1.0, False, None)
    assert path is not None
    again = Job.load(path)
    assert [(run.slug, run.reward, run.index) for run in again.runs] == [
        (f"add-{n}", 1.0, n) for n in range(4)
    ]
    assert not again.cancelled
    with JobFile(path) as file:
        (note,) = file.notes("resumed")
        assert note["record"]["done"] == 2
        assert file.summary()["runs"] == 4
    assert list(path.parent.glob("*.db")) == [path]


async def test_what_was_cut_off_is_a_new_attempt_beside_the_old_one_with_its_cost(place: Any) -> None:
    job = await interrupted(place, 2)
    before = job.runs[2]
    done = await rows().run(right, runtime=place, job=job)
    after = done.runs[2]
    assert (after.trace_id, after.group_id, after.attempt) == (before.trace_id, before.group_id, 2)
    (lost,) = after.attempts
    assert lost["failure"]["kind"] == "cancelled"
    assert lost["usage"]["cost_usd"] == 0.5
    assert done.path is not None
    with JobFile(done.path) as file:
        assert [attempt["usage"]["cost_usd"] for attempt in file.attempts(after.trace_id)] == [0.5]
        assert [
            step.get("usage") for step in file.steps(after.trace_id, attempt=1) if step["kind"] == "agent"
        ]


async def test_a_group_goes_on_within_itself(place: Any) -> None:
    job = await interrupted(place, 3, group=2)
    done = await rows().run(right, runtime=place, job=job)
    assert [run.index for run in done.runs] == list(range(8))
    groups = [run.group_id for run in done.runs]
    assert [len(set(groups[n : n + 2])) for n in range(0, 8, 2)] == [1, 1, 1, 1]
    assert len(set(groups)) == 4
    assert done.summary().runs == 8


async def test_a_finished_job_has_nothing_left(place: Any) -> None:
    job = await rows().run(right, runtime=place)
    placed = place.placed
    assert job.path is not None
    again = await rows().run(fails_on(0, 1, 2, 3), runtime=place, job=Job.load(job.path))
    assert place.placed == placed
    assert again.reward == 1.0


async def test_only_errors_run_again_and_replace_what_they_were(place: Any) -> None:
    refusing(place, 2, 3)
    job = await rows().run(right, runtime=place, retries=0, max_concurrent=1)
    assert [run.reward for run in job.runs] == [1.0, None, None, 1.0]
    refusing(place)
    assert job.path is not None
    placed = place.placed
    plain = await rows().run(right, runtime=place, job=Job.load(job.path))
    assert place.placed == placed, "a failure is a result, unless it is asked for again"
    assert plain.path is not None
    fixed = await rows().run(right, runtime=place, job=Job.load(job.path), only="errors")
    assert place.placed == placed + 2
    assert [run.reward for run in fixed.runs] == [1.0] * 4
    assert (fixed.summary().runs, fixed.summary().errors) == (4, 0)
    assert [attempt["failure"]["type"] for attempt in fixed.runs[1].attempts] == ["ValueError"]
    with JobFile(job.path) as file:
        sums = file.summary()
        assert (sums["runs"], sums["errors"], sums["mean_reward"]) == (4, 0, 1.0)


async def test_a_failure_that_was_made_again_when_its_process_was_killed_stays_what_it_was(
    tmp_path: Any,
) -> None:
    begins = {"run_id": "r", "index": 0, "slug": "a", "task": {"env": "e", "id": "t"}, "started_at": 1.0}
    failure = {"kind": "task", "phase": "grade", "type": "ValueError", "message": "no"}
    writer = JobWriter(tmp_path, "abc")
    writer.job({"job_id": "abc"})
    await writer.finished({**begins, "failure": failure, "steps": [{"kind": "agent", "content": "first"}]})
    await writer.close()
    again = JobWriter(tmp_path, "abc")
    again.attempt({"run_id": "r", "attempt": 1, "failure": failure, "again": True})
    again.started({**begins, "attempt": 2})
    for word in ("second", "third"):
        again.step("r", {"kind": "agent", "content": word, "usage": {"prompt_tokens": 7}})
    await again.close()  # what a kill leaves
    with JobFile(again.path) as file:
        assert [step["content"] for step in file.record("r")["steps"]] == ["first"]
        assert len(file.outlines("r")) == file.runs()[0]["steps"] == 1
    begun = Resumption.read(again.path, "errors").again[0]
    lost = [
        (attempt["attempt"], attempt["failure"]["type"], attempt["steps"]) for attempt in begun.attempts[1:]
    ]
    assert lost == [(2, "OrchestratorLostError", 2)]
    assert begun.attempts[1]["usage"]["prompt_tokens"] == 14


async def test_only_errors_leave_what_was_never_started(place: Any) -> None:
    refusing(place, 1)
    acting = asyncio.Event()

    async def agent(run: Run) -> str:
        acting.set()
        await asyncio.Event().wait()
        return ""

    job = Job(name="sums")
    running = asyncio.ensure_future(rows().run(agent, runtime=place, job=job, max_concurrent=1, retries=0))
    await acting.wait()
    running.cancel()
    await asyncio.wait({running})
    refusing(place)
    assert job.path is not None
    placed = place.placed
    done = await rows().run(right, runtime=place, job=Job.load(job.path), only="errors")
    assert place.placed == placed + 2
    assert [run.slug for run in done.runs] == ["add-0", "add-1"]


async def test_other_inputs_ask_for_force(place: Any) -> None:
    job = await interrupted(place, 2)
    other = Taskset("sums", [*rows(), Task(env="desk", id="add", args={"a": 9, "b": 1}, slug="add-9")])
    with pytest.raises(UsageError, match=r"the rows changed \(4 then, 5 now\).*--force"):
        await other.run(right, runtime=place, job=job)
    done = await other.run(right, runtime=place, job=job, force=True)
    assert [run.slug for run in done.runs] == ["add-0", "add-1", "add-2", "add-3", "add-9"]


async def test_another_row_in_a_finished_place_is_refused_even_with_force(place: Any) -> None:
    job = await interrupted(place, 2)
    other = Taskset("sums", list(rows())[::-1])
    with pytest.raises(UsageError, match="rollout 0 was of task 'add-0', and the source has 'add-3'"):
        await other.run(right, runtime=place, job=job, force=True)


async def test_what_does_not_fit_a_job_is_refused(place: Any, tmp_path: Any) -> None:
    job = await interrupted(place, 2)
    with pytest.raises(UsageError, match="cannot go on with group=3"):
        await rows().run(right, runtime=place, job=job, group=3)
    with pytest.raises(UsageError, match="leave jobs_dir out"):
        await rows().run(right, runtime=place, job=job, jobs_dir=tmp_path)
    with pytest.raises(UsageError, match="is for a job that was loaded"):
        await rows().run(right, runtime=place, only="errors")


async def test_a_job_that_runs_cannot_be_gone_on_with(place: Any) -> None:
    acting, go_on = asyncio.Event(), asyncio.Event()

    async def agent(run: Run) -> str:
        acting.set()
        await go_on.wait()
        return await right(run)

    job = Job(name="sums")
    running = asyncio.ensure_future(rows().run(agent, runtime=place, job=job))
    await acting.wait()
    assert job.path is not None
    with pytest.raises(UsageError, match="is still run by another process"):
        await rows().run(right, runtime=place, job=Job.load(job.path))
    go_on.set()
    assert (await running).reward == 1.0


@pytest.mark.slow
async def test_a_job_ends_at_its_deadline_and_goes_on_after(place: Any) -> None:
    async def agent(run: Run) -> str:
        if run.index >= 2:
            await asyncio.Event().wait()
        return await right(run)

    job = await rows().run(agent, runtime=place, max_concurrent=1, deadlines=Deadlines(job=0.7))
    assert job.ended_because == "its deadline of 0.7 s passed"
    cut = job.runs[2].failure
    assert cut is not None
    assert (cut.kind, cut.type) == ("cancelled", "PhaseTimeoutError")
    assert cut.message.endswith("while it was in act")
    assert place.open == 0
    assert job.path is not None
    done = await rows().run(right, runtime=place, job=Job.load(job.path))
    assert [run.reward for run in done.runs] == [1.0] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("retries", "tries", "reward"),
    [({"agent": 1}, 2, 1.0), ({"infrastructure": 5}, 1, 0.0), ({"agent": 2, "task": 1}, 2, 1.0)],
)
async def test_an_agent_that_failed_is_tried_again_where_asked(
    place: Any, retries: dict[str, int], tries: int, reward: float
) -> None:
    calls = 0

    async def agent(run: Run) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the first time")
        return await right(run)

    job = await rows(1).run(agent, runtime=place, retries=retries)
    (run,) = job.runs
    assert (calls, run.reward, run.attempt) == (tries, reward, tries)
    assert [attempt["failure"]["kind"] for attempt in run.attempts] == ["agent"] * (tries - 1)


@pytest.mark.slow
async def test_a_task_that_failed_is_tried_as_often_as_allowed_and_then_an_error(place: Any) -> None:
    task = Task(env="desk", id="raises_second", slug="broken")
    job = await Taskset("t", [task]).run(right_or_nothing, runtime=place, retries={"task": 2})
    (run,) = job.runs
    assert (run.reward, run.attempt) == (None, 3)
    assert [attempt["failure"]["kind"] for attempt in run.attempts] == ["task", "task"]


async def right_or_nothing(run: Run) -> str:
    return "nothing"


@pytest.mark.slow
async def test_tries_lost_with_their_orchestrator_do_not_count(place: Any) -> None:
    job = await interrupted(place, 2)
    refusing(place, place.placed + 1)
    done = await rows().run(right, runtime=place, job=job, retries=1, max_concurrent=1)
    assert [run.reward for run in done.runs] == [1.0] * 4
    assert [attempt["failure"]["kind"] for attempt in done.runs[2].attempts] == [
        "cancelled",
        "infrastructure",
    ]


@pytest.mark.parametrize("given", [{"weather": 1}, {"agent": -1}, {"task": True}])
def test_retries_that_cannot_be_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Retries.of(given)
