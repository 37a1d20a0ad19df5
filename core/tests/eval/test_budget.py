"""One budget over a whole job: how it is written, reserved, spent, and what it leaves undone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hud.agents.conversation import Request
from hud.agents.subagent import AgentTool, TaskTool
from hud.errors import BudgetExhaustedError, ConfigError
from hud.eval import Taskset
from hud.eval.budget import Budget
from hud.eval.purse import Purse
from hud.eval.run import Run
from hud.testing.scripted import Scripted, said
from hud.types import AgentStep, Task, Usage

pytestmark = pytest.mark.anyio

PRICES = '[prices."scripted"]\ninput = 1.0\noutput = 10.0\n'


@pytest.fixture
def priced(tmp_path: Path) -> None:
    (tmp_path / "hud.toml").write_text(PRICES, encoding="utf-8")


class Talker(Scripted):
    """A model whose replies may have 100 tokens, and have."""

    most = 100

    def output_tokens(self) -> int | None:
        return self.most


def rows(count: int, id: str = "add", **args: Any) -> list[Task]:  # noqa: A002
    return [Task(env="desk", id=id, args={"a": 1, "b": 2, **args}, slug=f"r{n}") for n in range(count)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25usd", Budget(usd=25.0)),
        ("$0.50", Budget(usd=0.5)),
        ("2.5m tokens", Budget(tokens=2_500_000)),
        ("500k tokens", Budget(tokens=500_000)),
        ("1,000,000 tokens", Budget(tokens=1_000_000)),
        ("3600 sandbox-seconds", Budget(sandbox_seconds=3600.0)),
        ("1.5 Sandbox-Hours", Budget(sandbox_seconds=5400.0)),
        ("25 USD, 2_000 tokens,10 sandbox minutes", Budget(usd=25.0, tokens=2000, sandbox_seconds=600.0)),
        (["1usd", "2k tokens"], Budget(usd=1.0, tokens=2000)),
    ],
)
async def test_a_budget_is_read_as_people_write_it(text: Any, expected: Budget) -> None:
    assert Budget.of(text) == expected
    assert Budget.of(str(expected)) == expected, "what is shown can be read again"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("25", "has no unit"),
        ("25 eur", "unknown unit 'eur'"),
        ("100 tokns", "did you mean tokens"),
        ("-3usd", "cannot be read"),
        ("0usd", "above 0"),
        ("1usd, 2usd", "bounded twice"),
        ("5m sandbox-seconds", "without k, m or b"),
        ("$5 tokens", "in dollars and in tokens"),
        (",", "says nothing"),
    ],
)
async def test_what_is_no_budget_is_refused_with_the_forms(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Budget.of(text)


@pytest.mark.usefixtures("priced")
async def test_many_calls_at_once_never_pass_the_budget() -> None:
    purse = Purse(Budget(usd=0.05))
    sent = 0

    async def call() -> bool:
        nonlocal sent
        try:
            with await purse.reserve(model="scripted", prompt_tokens=1000, output_tokens=100) as held:
                sent += 1
                assert purse.spent.usd + purse.held.usd <= 0.05 + 1e-9
                await asyncio.sleep(0)
                held.settle(Usage(1000, 100, cost_usd=0.002))
        except BudgetExhaustedError:
            return False
        return True

    outcomes = await asyncio.gather(*(call() for _ in range(60)))
    assert outcomes.count(True) == sent == 25
    assert purse.spent.usd == pytest.approx(0.05)
    assert purse.held.usd == 0


@pytest.mark.usefixtures("priced")
async def test_a_call_waits_for_those_in_flight_and_gets_what_they_did_not_use() -> None:
    purse = Purse(Budget(tokens=1000))
    first = await purse.reserve(model="scripted", prompt_tokens=100, output_tokens=800)
    second = asyncio.ensure_future(purse.reserve(model="scripted", prompt_tokens=100, output_tokens=800))
    await asyncio.sleep(0)
    assert not second.done()
    first.settle(Usage(100, 0, cost_usd=0.0))
    (await second).settle(Usage(100, 700, cost_usd=0.0))
    with pytest.raises(
        BudgetExhaustedError, match="900 tokens spent, and the next call of scripted may take"
    ):
        await purse.reserve(model="scripted", prompt_tokens=100, output_tokens=800)
    assert purse.used_up is not None


@pytest.mark.usefixtures("priced")
async def test_the_last_call_is_granted_a_shorter_reply_where_that_is_enough() -> None:
    purse = Purse(Budget(tokens=1000))
    held = await purse.reserve(model="scripted", prompt_tokens=100, output_tokens=5000, shrinks=True)
    assert held.output_tokens == 900
    held.settle(Usage(100, 600, cost_usd=0.0))
    with pytest.raises(BudgetExhaustedError):  # 200 would be left for a reply, where 600 were usual
        await purse.reserve(model="scripted", prompt_tokens=100, output_tokens=5000, shrinks=True)


@pytest.mark.usefixtures("priced")
async def test_a_cancelled_call_counts_whole_and_a_failed_one_not_at_all() -> None:
    purse = Purse(Budget(tokens=1000))
    held = await purse.reserve(model="scripted", prompt_tokens=100, output_tokens=100)
    with pytest.raises(asyncio.CancelledError), held:
        raise asyncio.CancelledError
    assert (purse.spent.tokens, purse.held.tokens) == (200, 0)
    held = await purse.reserve(model="scripted", prompt_tokens=100, output_tokens=100)
    with pytest.raises(KeyError), held:
        raise KeyError
    assert (purse.spent.tokens, purse.held.tokens) == (200, 0)


async def test_what_a_cancelled_call_held_excuses_no_later_step(place: Any) -> None:
    async def impatient(run: Run) -> str:
        held = await run.reserve(model="mine", prompt_tokens=100, output_tokens=100)
        try:
            with held:
                raise asyncio.CancelledError
        except asyncio.CancelledError:
            run.record(AgentStep(usage=Usage(100, 100), done=True))
        return "3"

    job = await Taskset("sums", rows(1)).run(impatient, runtime=place, budget="1000 tokens")
    assert job.budget is not None
    assert job.budget["spent"]["tokens"] == 400


@pytest.mark.usefixtures("priced")
async def test_who_waits_and_is_cancelled_holds_nothing() -> None:
    purse = Purse(Budget(tokens=300))
    first = await purse.reserve(model="scripted", prompt_tokens=100, output_tokens=100)
    second = asyncio.ensure_future(purse.reserve(model="scripted", prompt_tokens=100, output_tokens=150))
    third = asyncio.ensure_future(purse.reserve(model="scripted", prompt_tokens=50, output_tokens=50))
    await asyncio.sleep(0)
    second.cancel()
    held = await third
    assert purse.held.tokens == 300
    first.settle(None)
    held.settle(None)
    assert (purse.held.tokens, purse.spent.tokens) == (0, 0)


@pytest.mark.usefixtures("priced")
async def test_a_job_drains_within_its_budget_and_says_what_it_left(place: Any) -> None:
    agent = Talker(said("3", usage=Usage(100, 100, cost_usd=0.0011)))
    job = await Taskset("sums", rows(50)).run(agent, runtime=place, max_concurrent=8, budget="0.02usd")
    assert job.budget is not None
    spent = job.budget["spent"]["usd"]
    assert 0.015 < spent <= 0.02
    assert spent == pytest.approx(sum(run.trace.usage.cost_usd or 0 for run in job.runs))
    assert all(run.reward == 1.0 for run in job.runs), (
        "a rollout that could not begin is not graded as failed"
    )
    assert len(job.runs) + job.budget["not_started"] == 50
    assert "the budget of $0.02 is used up" in str(job.ended_because)
    assert f"{job.budget['not_started']} were not started" in str(job.ended_because)
    assert place.open == 0


@pytest.mark.usefixtures("priced")
async def test_a_rollout_at_work_is_ended_and_graded_on_what_it_achieved(place: Any) -> None:
    def count(n: int) -> str:
        """Count."""
        return str(n)

    turn = said("3", ("count", {"n": 1}), usage=Usage(100, 100, cost_usd=0.0011))
    agent = Talker(turn, tools=[count])
    job = await Taskset("sums", rows(3)).run(agent, runtime=place, max_concurrent=1, budget="2000 tokens")
    first = job.runs[0]
    assert (first.trace.stop_reason, first.reward) == ("budget", 1.0)
    assert len(job.runs) == 1
    assert job.budget is not None
    assert job.budget["cut_short"] == 1
    assert job.budget["spent"]["tokens"] <= 2000
    assert "1 running rollouts were ended and graded" in str(job.ended_because)
    assert job.model_dump()["budget"] == job.budget


@pytest.mark.usefixtures("priced")
async def test_a_budget_that_is_spent_to_the_end_of_the_work_ends_nothing_early(place: Any) -> None:
    agent = Talker(said("3", usage=Usage(100, 100, cost_usd=0.0011)))
    agent.most = 60
    job = await Taskset("sums", rows(2)).run(agent, runtime=place, max_concurrent=1, budget="400 tokens")
    assert [run.reward for run in job.runs] == [1.0, 1.0]
    assert job.ended_because is None


async def test_dollars_without_a_price_are_refused_before_anything_starts(place: Any) -> None:
    agent = Scripted(said("3"))
    with pytest.raises(ConfigError, match=r"the price of 'scripted' is not known.*\[prices") as refused:
        await Taskset("sums", rows(2)).run(agent, runtime=place, budget="1usd")
    assert "bound tokens instead" in str(refused.value)
    assert place.placed == 0


@pytest.mark.usefixtures("priced")
async def test_the_price_of_a_subagents_model_is_asked_for_too(place: Any) -> None:
    inner = Scripted(said("3"))
    inner.config.model = "nobody-knows"
    outer = Scripted(said("3"), tools=[AgentTool(inner, name="helper", description="Helps.")])
    with pytest.raises(ConfigError, match="nobody-knows"):
        await Taskset("sums", rows(1)).run(outer, runtime=place, budget="1usd")


@pytest.mark.usefixtures("priced")
async def test_subagents_and_tasks_as_tools_spend_from_the_same_budget_once(place: Any) -> None:
    usage = Usage(100, 100, cost_usd=0.0011)
    helper = Talker(said("done", usage=usage))
    inner = Talker(said("3", usage=usage))
    tools = [
        AgentTool(helper, name="helper", description="Helps."),
        TaskTool(rows(1)[0], inner, name="sum", description="Sums.", runtime=place, jobs_dir=False),
    ]
    outer = Talker(
        said(None, ("helper", {"prompt": "go"}), ("sum", {}), usage=usage),
        said("3", usage=usage),
        tools=tools,
    )
    job = await Taskset("sums", rows(1)).run(outer, runtime=place, budget="100k tokens")
    assert job.runs[0].error is None
    assert len(helper.requests) == len(inner.requests) == 1
    assert job.runs[0].trace.usage.total_tokens == 800
    assert job.budget is not None
    assert job.budget["spent"] == {"usd": 0.0044, "tokens": 800, "sandbox_seconds": None}


async def test_a_harness_that_does_not_reserve_is_stopped_at_its_next_step(place: Any) -> None:
    async def costly(run: Run) -> str:
        for _ in range(5):
            run.record(AgentStep(usage=Usage(100, 100)))
        return "3"

    job = await Taskset("sums", rows(4)).run(costly, runtime=place, max_concurrent=1, budget="700 tokens")
    assert [run.trace.stop_reason for run in job.runs] == ["budget"]
    assert job.budget is not None
    assert job.budget["not_started"] == 3


async def test_a_harness_of_ones_own_can_reserve(place: Any) -> None:
    async def careful(run: Run) -> str:
        with await run.reserve(model="mine", prompt_tokens=100, output_tokens=100) as held:
            usage = Usage(90, 80)
            held.settle(usage)
        run.record(AgentStep(usage=usage, done=True))
        return "3"

    job = await Taskset("sums", rows(9)).run(careful, runtime=place, max_concurrent=3, budget="700 tokens")
    assert job.budget is not None
    assert job.budget["spent"]["tokens"] == 170 * len(job.runs) <= 700
    assert all(run.reward == 1.0 for run in job.runs)


@pytest.mark.slow
async def test_sandbox_seconds_end_agents_and_start_no_more(place: Any) -> None:
    async def slow(run: Run) -> str:
        run.trace.content = "3"
        await asyncio.Event().wait()
        return ""

    job = await Taskset("sums", rows(5)).run(
        slow, runtime=place, max_concurrent=2, budget="1 sandbox-seconds"
    )
    assert [(run.trace.stop_reason, run.reward) for run in job.runs] == [("budget", 1.0)] * 2
    assert job.budget is not None
    assert job.budget["not_started"] == 3
    assert job.budget["spent"]["sandbox_seconds"] >= 0.9
    assert "sandbox-seconds spent" in str(job.ended_because)


async def test_a_budget_of_the_project_holds_for_every_job(place: Any, tmp_path: Path) -> None:
    (tmp_path / "hud.toml").write_text('[limits]\nbudget = "500 tokens"\n', encoding="utf-8")

    async def costly(run: Run) -> str:
        run.record(AgentStep(usage=Usage(100, 200)))
        return "3"

    job = await Taskset("sums", rows(4)).run(costly, runtime=place, max_concurrent=1)
    assert len(job.runs) == 2
    (tmp_path / "hud.toml").write_text('[limits]\nbudget = "500 apples"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hud\.toml: \[limits\] .*unknown unit 'apples'"):
        await Taskset("sums", rows(4)).run(costly, runtime=place)


@pytest.mark.usefixtures("priced")
async def test_a_shortened_reply_is_asked_for_and_noted(place: Any) -> None:
    agent = Talker(said("3", usage=Usage(20, 50, cost_usd=0.0)))
    agent.most = 50_000
    job = await Taskset("sums", rows(1)).run(agent, runtime=place, budget="1000 tokens")
    asked: Request = agent.requests[0]
    assert asked.output_tokens is not None
    assert asked.output_tokens <= 1000
    turn = next(step for step in job.runs[0].trace.steps if isinstance(step, AgentStep))
    assert turn.extra == {"output_tokens_left_by_budget": asked.output_tokens}
