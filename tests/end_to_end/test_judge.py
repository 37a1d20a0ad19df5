"""The judge where it works: in an environment's own process, asking through the orchestrator."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hud.eval import LocalRuntime, Taskset
from hud.eval.limits import Limits
from hud.testing.llm import Ask, ModelServer, Turn
from hud.testing.scripted import Scripted, said
from hud.types import Task
from hud_grader_llm.testing import asked_criterion, verdict

pytestmark = pytest.mark.anyio

HUD = Path(sys.executable).with_name("hud")

ENV = """
import os
from hud.environment import Environment
from hud.graders import BashGrader, LLMJudgeGrader, combine
from hud_grader_llm import compare, rank

env = Environment(name="judged")

@env.template()
async def task(votes: int = 1):
    answer = yield "Be good."
    yield await LLMJudgeGrader.grade(answer=answer, criteria=["is good", ("is bad", 3)], votes=votes)

@env.template()
async def number_alone():
    answer = yield "Be good."
    result = await LLMJudgeGrader.grade(answer=answer, criteria=["is good"])
    yield result.value

@env.template()
async def compared():
    answer = yield "Be good."
    first = await compare(answer, "bad")
    second, _ = await rank([answer, "bad"])
    yield (first.score + second.value) / 2

@env.template()
async def undecided():
    answer = yield "Be good."
    result = await LLMJudgeGrader.grade(answer=answer, criteria=["is odd"])
    yield result.value
"""


def rule(ask: Ask) -> Turn:
    criterion = asked_criterion(ask)
    return verdict("CANNOT_DECIDE" if "odd" in criterion else "MET" if "good" in criterion else "UNMET")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "env.py"
    path.write_text(ENV)
    return path


def taskset(template: str, **args: Any) -> Taskset:
    return Taskset("judged", [Task(env="judged", id=template, args=args)])


@pytest.mark.slow
async def test_verdicts_come_by_host_calls_and_are_recorded(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ModelServer(rule, key="host-key") as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "host-key")
        job = await taskset("task", votes=3).run(Scripted(said("I am.")), runtime=LocalRuntime(source))
        [run] = job.runs
        assert run.error is None
        assert run.reward == pytest.approx(0.25)
        calls = run.trace.extra["host_calls"]
        assert len(calls) == 6
        assert all(call["model"] == "claude-haiku-4-5" and call["usage"]["cost_usd"] > 0 for call in calls)
        kept = run.trace.model_dump_json() + str(run.grade.raw)
        assert "because" in kept  # the judge's reasons are part of the record
        assert "host-key" not in kept
    listed = subprocess.run(
        [HUD, "jobs", "--json"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    [line] = json.loads(listed)["jobs"]
    own = run.trace.usage.cost_usd
    assert own is not None
    assert line["cost_usd"] == pytest.approx(own + sum(call["usage"]["cost_usd"] for call in calls))


@pytest.mark.slow
async def test_verdicts_are_on_record_where_the_template_yields_the_number_alone(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ModelServer(rule) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        job = await taskset("number_alone").run(Scripted(said("I am.")), runtime=LocalRuntime(source))
        [run] = job.runs
        assert run.reward == 1.0
        [account] = run.grade.info["judge"]
        [verdict_] = account["criteria"]
        assert "| I am." in account["material"]
        assert verdict_["verdict"] == "MET"
        assert verdict_["model"] == "claude-haiku-4-5"
        assert verdict_["prompt_tokens"] > 0
        assert "criterion_status" in verdict_["raw"][0]
    shown = subprocess.run(
        [HUD, "trace", run.trace_id], capture_output=True, text=True, timeout=60, check=True
    )
    assert "judge is good: MET, because  (claude-haiku-4-5)" in shown.stdout
    assert "1 model calls by graders, " in shown.stdout
    assert "$0.000" in shown.stdout
    assert "criterion_status" not in shown.stdout


@pytest.mark.slow
async def test_comparisons_and_rankings_are_on_record_too(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prefers(ask: Ask) -> Turn:
        first = "I am." in ask.prompt.partition("</first response>")[0]
        return Turn('{"explanation": "kinder", "better": "%s"}' % ("FIRST" if first else "SECOND"))

    async with ModelServer(prefers) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        job = await taskset("compared").run(Scripted(said("I am.")), runtime=LocalRuntime(source))
        [run] = job.runs
        assert run.reward == 1.0
        one, two = run.grade.info["judge"]
        assert (one["grader"], one["a first"]["verdict"], one["b first"]["reason"]) == (
            "compare",
            "FIRST",
            "kinder",
        )
        assert two["answers"] == ["I am.", "bad"]
        assert two["comparisons"][0]["score"] == 1.0
        assert two["usage"]["prompt_tokens"] > 0


@pytest.mark.slow
async def test_a_judge_that_cannot_decide_is_an_error_and_no_reward(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ModelServer(rule) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        job = await taskset("undecided").run(Scripted(said("I am.")), runtime=LocalRuntime(source))
        [run] = job.runs
        assert run.reward is None
        assert "could not decide" in (run.error or "")


@pytest.mark.slow
async def test_a_budget_covers_the_judge_too(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ModelServer(rule) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        job = await taskset("task").run(
            Scripted(said("I am.")), runtime=LocalRuntime(source), limits=Limits(max_tokens=30)
        )
        [run] = job.runs
        assert run.reward is None
        assert "max_tokens" in (run.error or "")
        assert not server.asks


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "judge"


async def test_the_examples_judge_is_held_to_its_labels() -> None:
    from hud_grader_llm import Rubric
    from hud_grader_llm.calibration import calibrate, read_labelled
    from hud_grader_llm.testing import quoted_response

    rubric = Rubric.load(EXAMPLE / "rubric.yaml")
    labelled = read_labelled(EXAMPLE / "labelled.jsonl", rubric)
    assert len(labelled) == 32
    by_answer = {item.answer: item.labels for item in labelled}
    names = {criterion.requirement: criterion.name for criterion in rubric.criteria}

    def knows(ask: Ask) -> Turn:
        """A judge that agrees with people but on one answer."""
        answer, name = quoted_response(ask), names[asked_criterion(ask)]
        met = by_answer[answer][name] != (answer == "Stop giving up on 503" and name == "says what changes")
        return verdict("MET" if met else "UNMET")

    async with ModelServer(knows) as server:
        result = await calibrate(rubric, labelled, base_url=server.url)
    assert result.overall is not None
    assert result.overall.accuracy == pytest.approx(127 / 128)
    kappas = {row.name: row.kappa for row in result.criteria}
    assert kappas.pop("says what changes") == pytest.approx(0.937, abs=0.01)
    assert set(kappas.values()) == {1.0}
    assert [line.split(":")[0] for line in result.disagreements] == ["line 27"]
