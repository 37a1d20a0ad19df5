"""What ends a rollout, and how the run tells of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from hud.environment import Environment
from hud.environment.serve import bind
from hud.environment.service import serving
from hud.errors import (
    AgentFault,
    ConfigError,
    ConnectionLostError,
    ContextOverflowError,
    LimitError,
    PluginNotInstalledError,
    ProviderError,
    RuntimeStartError,
)
from hud.eval import Deadlines, Limits, Run, Taskset, rollout
from hud.eval.failures import classify
from hud.eval.options import Options
from hud.runtime.contract import Runtime
from hud.types import AgentStep, RuntimeConfig, RuntimeLimits, Task, Usage

pytestmark = pytest.mark.anyio


async def three(run: Run) -> str:
    return "3"


def row(template: str, **options: Any) -> Task:
    return Task(env="desk", id=template, **options)


async def test_a_rollout_is_graded_and_timed_phase_by_phase(place: Any) -> None:
    run = await rollout(row("add"), three, runtime=place)
    assert run.reward == 1.0
    assert run.failure is None
    assert run.trace.status == "completed"
    assert run.trace.stop_reason == "done"
    assert run.trace.content == "3"
    assert list(run.phases_s) == ["place", "connect", "start", "act", "grade", "release"]
    assert all(seconds >= 0 for seconds in run.phases_s.values())
    assert place.open == 0


async def test_the_trace_has_setup_and_evaluation(place: Any) -> None:
    run = await rollout(row("add", args={"a": 4}), three, runtime=place)
    setup, evaluation = [step.task_call for step in run.trace.steps]
    assert setup is not None
    assert evaluation is not None
    assert (setup.phase, setup.arguments, setup.result) == ("setup", {"a": 4}, {"prompt": "What is 4 + 2?"})
    assert (evaluation.phase, evaluation.arguments) == ("evaluate", {"answer": "3"})
    assert run.reward == 0.0


async def test_an_agent_sees_the_prompt_and_may_set_the_answer_itself(place: Any) -> None:
    async def reads(run: Run) -> None:
        assert run.prompt_text == "What is 1 + 2?"
        assert [m.role for m in run.prompt_messages] == ["user"]
        run.trace.content = "3"

    assert (await rollout(row("add"), reads, runtime=place)).reward == 1.0


async def test_an_agent_that_says_nothing_answers_an_empty_text(place: Any) -> None:
    async def silent(run: Run) -> None: ...

    assert (await rollout(row("add"), silent, runtime=place)).reward == 0.0


async def test_what_a_failed_agent_achieved_is_graded(place: Any) -> None:
    async def fails(run: Run) -> None:
        run.trace.content = "3"
        raise ValueError("lost the thread")

    run = await rollout(row("add"), fails, runtime=place)
    assert run.reward == 1.0
    assert run.trace.status == "error"
    assert run.failure is not None
    assert (run.failure.kind, run.failure.phase, run.failure.type) == ("agent", "act", "ValueError")
    assert run.failure.failed_part == "agent"
    assert "lost the thread" in (run.failure.traceback or "")
    assert "foreign.py" not in (run.failure.traceback or "")
    assert run.attempts == []


@pytest.mark.parametrize("leave", [SystemExit(3), asyncio.CancelledError(), AgentFault("no")])
async def test_an_agent_that_leaves_oddly_fails_alone(place: Any, leave: BaseException) -> None:
    async def leaves(run: Run) -> None:
        raise leave

    run = await rollout(row("add"), leaves, runtime=place)
    assert run.failure is not None
    assert (run.failure.kind, run.failure.type) == ("agent", "AgentFault")
    assert run.reward == 0.0


async def test_an_agent_that_takes_too_long_is_graded_with_an_error(place: Any) -> None:
    async def slow(run: Run) -> None:
        run.trace.content = "3"
        await asyncio.Event().wait()

    run = await rollout(row("add"), slow, runtime=place, options=Options(deadlines=Deadlines(act=0.05)))
    assert run.reward == 1.0
    assert (run.trace.status, run.trace.stop_reason) == ("error", "timeout")
    assert run.failure is not None
    assert (run.failure.kind, run.failure.type) == ("agent", "PhaseTimeoutError")
    assert "'act'" in run.failure.message


async def test_an_agent_that_swallows_cancellation_is_left_behind_and_graded(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hud.eval.foreign.GRACE_S", (0.01, 0.01))
    freed = asyncio.Event()

    async def stubborn(run: Run) -> None:
        run.trace.content = "3"
        while not freed.is_set():
            try:
                await freed.wait()
            except asyncio.CancelledError:
                continue

    run = await rollout(row("add"), stubborn, runtime=place, options=Options(deadlines=Deadlines(act=0.05)))
    freed.set()
    assert run.reward == 1.0
    assert [problem.phase for problem in run.problems] == ["act"]
    assert "left running" in run.problems[0].message
    assert place.open == 0
    while place.open:
        await asyncio.sleep(0)
    for _ in range(50):  # the rest of what was left behind: no await of its own waits for anything
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("template", "phase", "kind"),
    [("raises_first", "start", "KeyError"), ("raises_second", "grade", "ZeroDivisionError")],
)
async def test_a_template_that_raises_is_the_tasks_failure_with_its_authors_traceback(
    place: Any, template: str, phase: str, kind: str
) -> None:
    run = await rollout(row(template), three, runtime=place)
    assert run.reward is None
    assert run.grade.is_error
    assert run.failure is not None
    assert (run.failure.kind, run.failure.phase) == ("task", phase)
    assert kind in run.failure.message
    assert template in (run.failure.traceback or "")
    assert run.attempts == [], "a task's failure is not retried"


@pytest.mark.parametrize(("template", "phase"), [("hangs_first", "start"), ("hangs_second", "grade")])
async def test_a_template_that_hangs_is_the_tasks_failure_and_names_the_phase(
    place: Any, template: str, phase: str
) -> None:
    options = Options(deadlines=Deadlines(start=0.1, grade=0.1))
    run = await rollout(row(template), three, runtime=place, options=options)
    assert run.reward is None
    assert run.failure is not None
    assert (run.failure.kind, run.failure.phase, run.failure.type) == ("task", phase, "PhaseTimeoutError")
    assert place.open == 0


async def test_a_reward_that_is_no_number_is_no_reward(place: Any) -> None:
    run = await rollout(row("no_number"), three, runtime=place)
    assert run.reward is None
    assert run.failure is not None
    assert (run.failure.kind, run.failure.type) == ("task", "RewardError")


async def test_an_unknown_template_is_the_tasks_failure(place: Any) -> None:
    run = await rollout(row("ad"), three, runtime=place)
    assert run.failure is not None
    assert run.failure.kind == "task"
    assert "add" in run.failure.message


@pytest.mark.slow
async def test_a_placement_that_fails_is_tried_afresh_and_the_attempts_are_kept(place: Any) -> None:
    async def fail(number: int) -> None:
        if number < 3:
            raise RuntimeStartError(f"no room, try {number}")

    place.fail = fail
    run = await rollout(row("add"), three, runtime=place)
    assert run.reward == 1.0
    assert run.failure is None
    assert [a["attempt"] for a in run.attempts] == [1, 2]
    assert [a["failure"]["kind"] for a in run.attempts] == ["infrastructure", "infrastructure"]
    assert run.attempt_key.endswith(".3")
    assert place.open == 0


@pytest.mark.slow
async def test_retries_end(place: Any) -> None:
    async def fail(number: int) -> None:
        raise RuntimeStartError(f"no room, try {number}")

    place.fail = fail
    run = await rollout(row("add"), three, runtime=place, options=Options(retries=1))
    assert place.placed == 2
    assert run.reward is None
    assert run.failure is not None
    assert (run.failure.kind, run.failure.phase, run.failure.message) == (
        "infrastructure",
        "place",
        "no room, try 2",
    )
    assert len(run.attempts) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [ConnectionLostError("the channel broke"), ProviderError("503", status=503, retryable=True)]
)
async def test_what_infrastructure_did_to_an_agent_is_tried_afresh(place: Any, error: Exception) -> None:
    calls = 0

    async def unlucky(run: Run) -> str:
        nonlocal calls
        calls += 1
        run.record(AgentStep(content=f"try {calls}"))
        if calls == 1:
            raise error
        return "3"

    run = await rollout(row("add"), unlucky, runtime=place)
    assert run.reward == 1.0
    assert place.placed == 2
    assert run.attempts[0]["steps"] == 2
    assert [s.content for s in run.trace.steps if isinstance(s, AgentStep)] == ["try 2"]


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (ProviderError("bad key", status=401), "agent", "provider"),
        (ConfigError("no terminal"), "usage", "user"),
        (PluginNotInstalledError("no such client"), "usage", "plugin"),
    ],
)
async def test_an_agent_that_cannot_run_is_no_reward(
    place: Any, error: Exception, kind: str, part: str
) -> None:
    async def refused(run: Run) -> None:
        raise error

    run = await rollout(row("add"), refused, runtime=place)
    assert place.placed == 1
    assert run.failure is not None
    assert (run.failure.kind, run.failure.failed_part) == (kind, part)
    assert run.reward is None
    assert place.open == 0


@pytest.mark.parametrize(
    ("error", "steps"),
    [
        (ProviderError("bad request", status=400), 1),
        (ConfigError("no such tool"), 1),
        (ContextOverflowError("too long"), 0),
        (ValueError("a bug of the agent"), 0),
    ],
)
async def test_what_an_agent_achieved_before_it_failed_is_graded(
    place: Any, error: Exception, steps: int
) -> None:
    async def fails(run: Run) -> None:
        for _ in range(steps):
            run.record(AgentStep(content="3"))
        run.trace.content = "3"
        raise error

    run = await rollout(row("add"), fails, runtime=place)
    assert run.reward == 1.0
    assert run.failure is not None


async def test_a_teardown_that_fails_changes_no_grade(place: Any) -> None:
    async def broken() -> None:
        raise OSError("the disk is gone")

    place.on_release = broken
    run = await rollout(row("add"), three, runtime=place)
    assert run.reward == 1.0
    assert run.failure is None
    assert [(p.phase, p.type) for p in run.problems] == [("release", "OSError")]


async def test_a_teardown_that_hangs_is_bounded(place: Any) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    place.on_release = hangs
    options = Options(deadlines=Deadlines(release=0.1))
    run = await rollout(row("add"), three, runtime=place, options=options)
    assert run.reward == 1.0
    assert [p.type for p in run.problems] == ["PhaseTimeoutError"]


async def test_a_rollouts_own_time_covers_everything_and_leaves_it_ungraded(place: Any) -> None:
    async def slow(run: Run) -> None:
        run.trace.content = "3"
        await asyncio.Event().wait()

    run = await rollout(row("add"), slow, runtime=place, rollout_timeout=0.2)
    assert run.reward is None
    assert (run.trace.status, run.trace.stop_reason) == ("error", "timeout")
    assert run.failure is not None
    assert run.failure.type == "PhaseTimeoutError"
    assert "'rollout'" in run.failure.message
    assert place.open == 0


async def test_cancelling_gives_everything_back_and_propagates(place: Any) -> None:
    acting = asyncio.Event()

    async def waits(run: Run) -> None:
        acting.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(rollout(row("add"), waits, runtime=place))
    await acting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.open == 0


async def test_a_timeout_of_the_callers_own_works_around_a_rollout(place: Any) -> None:
    async def waits(run: Run) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await rollout(row("add"), waits, runtime=place)
    assert place.open == 0


async def test_the_agents_own_scopes_hold_as_written(place: Any) -> None:
    import anyio

    async def careful(run: Run) -> str:
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "3"
        return ""

    assert (await rollout(row("add"), careful, runtime=place)).reward == 1.0


async def test_steps_are_limited_and_what_was_achieved_is_graded(place: Any) -> None:
    async def eager(run: Run) -> None:
        run.trace.content = "3"
        while True:
            run.record(AgentStep(content="thinking"))

    options = Options(limits=Limits(max_steps=4))
    run = await rollout(row("add"), eager, runtime=place, options=options)
    assert run.reward == 1.0
    assert run.trace.status == "completed"
    assert run.trace.stop_reason == "max_steps"
    assert run.trace.is_truncated
    assert sum(isinstance(step, AgentStep) for step in run.trace.steps) == 4


async def test_a_last_step_that_is_done_is_no_limit_reached(place: Any) -> None:
    async def exact(run: Run) -> str:
        run.record(AgentStep(content="a"))
        run.record(AgentStep(content="3", done=True))
        return "3"

    run = await rollout(row("add"), exact, runtime=place, options=Options(limits=Limits(max_steps=2)))
    assert run.trace.stop_reason == "done"


async def test_a_limit_the_agent_keeps_to_itself_is_told_all_the_same(place: Any) -> None:
    async def sly(run: Run) -> str:
        with suppress(LimitError):
            run.record(AgentStep(usage=Usage(prompt_tokens=900, completion_tokens=200)))
        return "3"

    run = await rollout(row("add"), sly, runtime=place, options=Options(limits=Limits(max_tokens=1000)))
    assert run.trace.stop_reason == "max_tokens"
    assert run.reward == 1.0


async def test_cost_is_limited_and_an_unknown_price_cannot_be(place: Any) -> None:
    async def spends(run: Run) -> None:
        for _ in range(10):
            run.record(AgentStep(usage=Usage(10, 10, cost_usd=0.4)))

    async def spends_unknown(run: Run) -> None:
        run.record(AgentStep(usage=Usage(10, 10)))

    options = Options(limits=Limits(max_cost_usd=1.0))
    run = await rollout(row("add"), spends, runtime=place, options=options)
    assert run.trace.stop_reason == "max_cost_usd"
    assert run.trace.usage.cost_usd == pytest.approx(1.2)
    run = await rollout(row("add"), spends_unknown, runtime=place, options=options)
    assert run.trace.stop_reason == "max_cost_usd"
    assert "price is not known" in run.trace.extra["limit"]


async def test_an_estimate_is_held_against_the_limit_before_it_is_spent(place: Any) -> None:
    async def careful(run: Run) -> None:
        run.check_limits(tokens=10)
        run.check_limits(tokens=101)

    run = await rollout(row("add"), careful, runtime=place, options=Options(limits=Limits(max_tokens=100)))
    assert run.trace.stop_reason == "max_tokens"


async def test_a_rows_own_settings_hold(place: Any) -> None:
    async def eager(run: Run) -> None:
        while True:
            run.record(AgentStep())

    async def slow(run: Run) -> None:
        await asyncio.Event().wait()

    run = await rollout(row("add", agent_config={"max_steps": 2}), eager, runtime=place)
    assert run.trace.stop_reason == "max_steps"
    run = await rollout(row("add", agent_config={"timeout_seconds": 0.05}), slow, runtime=place)
    assert run.trace.stop_reason == "timeout"


async def test_a_rows_setting_the_agent_does_not_know_is_refused(place: Any) -> None:
    with pytest.raises(ConfigError, match=r"agent_config has \['temperature'\]"):
        await Taskset("t", [row("add", agent_config={"temperature": 1})]).run(three, runtime=place)
    assert place.placed == 0


@pytest.mark.parametrize(
    ("agent_config", "run_timeout", "rollout_timeout", "said"),
    [
        ({"timeout_seconds": 50}, 50.0, None, "must be below run_timeout_s=50"),
        ({"timeout_seconds": 50}, None, 50.0, "timeout_seconds=50 must be below the rollout's 50"),
        (None, 60.0, 50.0, "run_timeout_s=60 must be below the rollout's 50"),
    ],
)
async def test_times_that_contradict_each_other_are_refused_before_anything_starts(
    place: Any, agent_config: Any, run_timeout: float | None, rollout_timeout: float | None, said: str
) -> None:
    config = RuntimeConfig(limits=RuntimeLimits(run_timeout_s=run_timeout)) if run_timeout else None
    task = row("add", agent_config=agent_config, runtime_config=config)
    with pytest.raises(ConfigError, match=said):
        await Taskset("t", [task]).run(three, runtime=place, rollout_timeout=rollout_timeout)
    assert place.placed == 0


async def test_a_provider_with_a_scope_of_its_own_is_entered_and_left_in_one_task(env: Any) -> None:
    import anyio

    from hud.environment.service import serving

    @asynccontextmanager
    async def scoped(task: Task) -> AsyncIterator[Runtime]:
        async with anyio.create_task_group() as group, serving(env) as service:
            group.start_soon(anyio.sleep_forever)
            yield Runtime("local:", params={"service": service})
            group.cancel_scope.cancel()

    run = await rollout(row("add"), three, runtime=scoped)
    assert run.reward == 1.0
    assert run.problems == []


async def test_a_verifier_of_the_same_environment_has_the_last_word(env: Environment, place: Any) -> None:
    seen: list[Any] = []

    @env.template()
    async def check() -> AsyncIterator[Any]:
        frame: Any = yield "(no agent sees this)"
        seen.append(frame)
        yield frame["score"] / 2

    task = row("add", verifier=Task(env="desk", id="check"))
    run = await rollout(task, three, runtime=place)
    assert run.reward == 0.5
    assert seen[0]["score"] == 1.0
    assert place.placed == 1
    calls = [(s.task_call.phase, s.task_call.name) for s in run.trace.steps if s.task_call]
    assert calls == [("setup", "add"), ("evaluate", "add"), ("evaluate", "check")]


async def test_a_verifier_elsewhere_gets_a_placement_of_its_own(env: Any, place: Any) -> None:
    from hud.environment.service import serving

    other = Environment(name="court")

    @other.template()
    async def check() -> AsyncIterator[Any]:
        frame: Any = yield "(no agent sees this)"
        yield 0.25 if frame["score"] == 1.0 else 0.0

    held: list[int] = []

    @asynccontextmanager
    async def both(task: Task) -> AsyncIterator[Runtime]:
        if task.env == "desk":
            async with place(task) as runtime:
                yield runtime
            return
        held.append(place.open)
        async with serving(other) as service:
            yield Runtime("local:", params={"service": service})

    run = await rollout(row("add", verifier=Task(env="court", id="check")), three, runtime=both)
    assert run.reward == 0.25
    assert held == [1]
    assert place.open == 0


async def test_a_verifier_that_fails_leaves_no_reward(env: Any, place: Any) -> None:
    task = row("add", verifier=Task(env="desk", id="raises_second"))
    run = await rollout(task, three, runtime=place)
    assert run.reward is None
    assert run.failure is not None
    assert (run.failure.kind, run.failure.phase) == ("task", "grade")


@pytest.mark.slow
async def test_an_address_where_nobody_answers_is_waited_for_once(place: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    task = row("add")
    run = await rollout(
        task,
        three,
        runtime=Runtime(f"tcp://127.0.0.1:{port}"),
        options=Options(deadlines=Deadlines(connect=0.2)),
    )
    assert run.failure is not None
    assert run.failure.type == "ReadyTimeoutError"
    assert run.attempts == []
    job = await Taskset("one", [task]).run(
        three, runtime=f"tcp://127.0.0.1:{port}", deadlines=Deadlines(connect=0.2), jobs_dir=False
    )
    assert [run.attempts for run in job.runs] == [[]]


async def test_a_failure_without_a_phase_has_no_empty_one() -> None:
    failure = classify(asyncio.CancelledError(), "")
    assert str(failure).startswith("CancelledError: ")


@pytest.mark.slow
@pytest.mark.parametrize("remote", [True, False])
async def test_a_cleanup_that_fails_after_the_reply_is_told_with_the_run(
    env: Environment, remote: bool
) -> None:
    @env.template()
    async def lingers() -> AsyncIterator[Any]:
        yield "say anything"
        yield 0.5
        await asyncio.sleep(2.2)  # the reply waits 2 s for it
        raise RuntimeError("the socket is still open")

    if remote:
        async with await bind(env) as server:
            run = await rollout(row("lingers"), three, runtime=Runtime(server.url))
    else:
        async with serving(env) as service:
            run = await rollout(row("lingers"), three, runtime=Runtime("local:", {"service": service}))
    assert run.reward == 0.5
    assert run.failure is None
    (problem,) = run.problems
    assert problem.phase == "release"
    assert "the socket is still open" in problem.message
