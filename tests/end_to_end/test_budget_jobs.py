"""One budget over agents, judges and what is resumed, against a simulated provider."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hud.agents import create_agent
from hud.eval import LocalRuntime, Taskset
from hud.eval.budget import shown
from hud.eval.job import Job
from hud.eval.regrade import regrade
from hud.testing.llm import Ask, ModelServer, Turn
from hud.testing.scripted import Scripted, said
from hud.types import Task, Usage
from hud_grader_llm.testing import asked_criterion, verdict

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HUD = Path(sys.executable).with_name("hud")
MODEL = "claude-haiku-4-5"
ENV = """
from hud.environment import Environment
from hud.graders import LLMJudgeGrader

env = Environment(name="judged")

@env.template()
async def task(n: int = 0):
    answer = yield f"Be good, number {n}."
    yield await LLMJudgeGrader.grade(answer=answer, criteria=["is good"])
"""
TASKS = """
from env import task
from hud.eval import Taskset

TASKS = Taskset("many", [task(n=n).model_copy(update={"slug": f"r{n}"}) for n in range(12)])
"""


def is_judge(ask: Ask) -> bool:
    return bool(ask.schema) or "criterion" in ask.messages[-1].text.lower()


def rule(ask: Ask) -> Turn:
    return (
        verdict("MET" if "good" in asked_criterion(ask) else "UNMET") if is_judge(ask) else Turn("I am good.")
    )


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env.py").write_text(ENV, encoding="utf-8")
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    return tmp_path / "env.py"


def rows(count: int) -> Taskset:
    return Taskset("many", [Task(env="judged", id="task", args={"n": n}, slug=f"r{n}") for n in range(count)])


def tokens_of(job: Job) -> int:
    """What agents and judges used, as the runs tell."""
    judged = [call["usage"] for run in job.runs for call in run.trace.extra.get("host_calls", ())]
    acted = sum(run.trace.usage.total_tokens for run in job.runs)
    return acted + sum(int(usage["prompt_tokens"] + usage["completion_tokens"]) for usage in judged)


async def test_agents_and_judges_spend_from_one_budget(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ModelServer(rule) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        agent = create_agent(MODEL, max_tokens=400)
        everything = await rows(12).run(agent, runtime=LocalRuntime(source), verdict_cache=False)
        assert everything.reward == 1.0
        spent = tokens_of(everything)
        job = await rows(12).run(
            agent, runtime=LocalRuntime(source), verdict_cache=False, max_concurrent=4,
            budget=f"{spent // 2 + 2000} tokens",
        )  # fmt: skip
        assert job.budget is not None
        assert job.budget["spent"]["tokens"] == tokens_of(job)
        assert spent // 6 < job.budget["spent"]["tokens"] <= spent // 2 + 2000
        assert job.budget["not_started"] > 0
        assert len(job.runs) + job.budget["not_started"] == 12
        rest = await rows(12).run(
            agent,
            runtime=LocalRuntime(source),
            verdict_cache=False,
            job=Job.load(job.id),
            budget=f"{2 * spent} tokens",
        )
        assert rest.budget is not None
        assert rest.budget["spent"]["tokens"] > job.budget["spent"]["tokens"], "the first half still counts"
        assert (len(rest.runs), rest.ended_because) == (12, None)


async def test_work_whose_judge_could_not_be_paid_is_kept_and_graded_later(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ModelServer(rule) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        agent = Scripted(said("I am good.", usage=Usage(10, 5)))
        job = await rows(1).run(agent, runtime=LocalRuntime(source), budget="400 tokens")
        [run] = job.runs
        assert run.reward is None
        assert run.failure is not None
        assert (run.failure.type, run.failure.kind, run.failure.phase) == (
            "BudgetExhaustedError",
            "limit",
            "grade",
        )
        assert not server.asks
        again = await regrade(job.id, rows(1), runtime=LocalRuntime(source))
        assert [(one.old, one.new) for one in again.runs] == [(None, 1.0)]


async def test_a_question_is_asked_once_also_on_resume_and_on_grading_again(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ModelServer(rule) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        agent = Scripted(said("I am good.", usage=Usage(10, 10)))
        options: dict[str, Any] = {"runtime": LocalRuntime(source), "max_concurrent": 1}
        first = await rows(3).run(agent, **options, limit=1)
        assert len(server.asks) == 1
        more = await rows(3).run(agent, job=Job.load(first.id), force=True, **options)
        assert [run.reward for run in more.runs] == [1.0, 1.0, 1.0]
        assert len(server.asks) == 1
        assert [run.trace.extra["host_calls"][0]["cached"] for run in more.runs] == [False, True, True]
        again = await regrade(first.id, rows(3), **options)
        assert (again.complete, len(server.asks)) == (True, 1)
        anew = await regrade(first.id, rows(3), verdict_cache=False, **options)
        assert (anew.complete, len(server.asks)) == (True, 4)


async def test_the_program_drains_says_so_and_goes_on(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hud(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(HUD), *words], check=False, capture_output=True, text=True, timeout=100)

    async with ModelServer(rule) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        words = [
            "eval",
            "tasks.py",
            MODEL,
            "-c",
            "max_tokens=300",
            "--max-concurrent",
            "2",
            "--no-verdict-cache",
        ]
        refused = await asyncio.to_thread(hud, *words, "--budget", "5 euros")
        assert refused.returncode == 2
        assert "unknown unit 'euros'" in refused.stderr
        assert not server.asks
        done = await asyncio.to_thread(hud, *words, "--json", "--budget", "3000 tokens, 1usd")
        told = json.loads(done.stdout)
        assert done.returncode == 1
        assert told["budget"]["spent"]["tokens"] <= 3000
        assert 0 < told["run_count"] < 12
        ungraded = [run["failure"]["type"] for run in told["runs"] if run["reward"] is None]
        assert set(ungraded) <= {"BudgetExhaustedError"}, "work whose judge could not be paid any more"
        assert len(ungraded) < 3
        assert "ended early: the budget of $1.00, 3,000 tokens is used up" in done.stderr
        page = await asyncio.to_thread(hud, "jobs", told["job_id"])
        spent = told["budget"]["spent"]
        dollars = shown("usd", spent["usd"])
        assert f"  budget: {dollars} of $1.00, {spent['tokens']:,} tokens of 3,000 tokens\n" in page.stdout
        assert f"{12 - told['run_count']} were not started" in done.stderr
        rest = await asyncio.to_thread(
            hud, "eval", "--resume", told["job_id"], "--budget", "1m tokens", "--json"
        )
        assert rest.returncode == (1 if ungraded else 0), rest.stderr
        whole = json.loads(rest.stdout)
        assert (whole["run_count"], whole["ended_because"]) == (12, None)
        assert whole["budget"]["spent"]["tokens"] > told["budget"]["spent"]["tokens"]
        os.environ.pop("ANTHROPIC_BASE_URL", None)
        unpriced = await asyncio.to_thread(
            hud, "eval", "tasks.py", "claude-of-my-own-9", "--budget", "1usd", "-c", f"base_url={server.url}"
        )
        assert unpriced.returncode == 2, unpriced.stderr
        assert "the price of 'claude-of-my-own-9' is not known" in unpriced.stderr
