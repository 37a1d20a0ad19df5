"""Each grader keeps the contract of graders."""

from collections.abc import Iterator, Sequence

import pytest

from hud.testing.grader import Graded, GraderContract
from hud.testing.llm import Ask, Turn
from hud.testing.llm.background import serving
from hud.types import AgentStep, MCPToolCall, MCPToolResult, ToolStep, Trace
from hud_grader_llm import LLMJudgeGrader, PairwiseGrader, ReferenceGrader, TrajectoryGrader
from hud_grader_llm.testing import asked_criterion, quoted_response, verdict


def judging(ask: Ask) -> Turn:
    """A judge for all of them: a criterion is met where its first word occurs; `odd` cannot be decided."""
    system = ask.system
    if "compare two responses" in system:
        first = "good" in ask.prompt.partition("</first response>")[0]
        return Turn(f'{{"explanation": "x", "better": "{"FIRST" if first else "SECOND"}"}}')
    response = quoted_response(ask)
    if "same answer as a reference" in system:
        return Turn(
            '{"explanation": "x", "equivalence": "%s"}' % ("SAME" if "good" in response else "CANNOT_DECIDE")
        )
    word = asked_criterion(ask).split()[0]
    return verdict("CANNOT_DECIDE" if word == "odd" else "MET" if word in response else "UNMET")


@pytest.fixture
def url() -> Iterator[str]:
    with serving(judging) as server:
        yield server.url


class TestLLMJudge(GraderContract):
    grader = LLMJudgeGrader

    @pytest.fixture
    def cases(self, url: str) -> Sequence[Graded]:
        return [
            Graded({"answer": "good", "criteria": ["good", ("bad", 3)], "base_url": url}, 0.25),
            Graded({"answer": "good", "criteria": ["good", "good"], "votes": 3, "base_url": url}, 1.0),
            Graded({"answer": "good", "criteria": ["odd"], "base_url": url}, fails=True),
            Graded({"answer": "good", "criteria": [], "base_url": url}, fails=True),
        ]


class TestReference(GraderContract):
    grader = ReferenceGrader

    @pytest.fixture
    def cases(self, url: str) -> Sequence[Graded]:
        return [
            Graded({"answer": "a good one", "reference": "x", "base_url": url}, 1.0),
            Graded({"answer": "", "reference": "x", "base_url": url}, 0.0),
            Graded({"answer": "who knows", "reference": "x", "base_url": url}, fails=True),
        ]


class TestPairwise(GraderContract):
    grader = PairwiseGrader

    @pytest.fixture
    def cases(self, url: str) -> Sequence[Graded]:
        return [
            Graded({"answer": "good", "baseline": "bad", "base_url": url}, 1.0),
            Graded({"answer": "bad", "baseline": "good", "base_url": url}, 0.0),
            Graded({"answer": "bad", "baseline": None, "base_url": url}, fails=True),
        ]


class TestTrajectory(GraderContract):
    grader = TrajectoryGrader

    @pytest.fixture
    def cases(self) -> Sequence[Graded]:
        trace = Trace()
        call = MCPToolCall("bash", {"command": "ls"}, "1")
        trace.record(AgentStep(tool_calls=[call]))
        trace.record(ToolStep(call=call, result=MCPToolResult.of_text("a")))
        return [
            Graded({"trace": trace, "required_tools": ["bash"], "max_steps": 0}, 0.5),
            Graded({"trace": trace}, fails=True),
            Graded({"trace": "no trace", "max_steps": 1}, fails=True),
        ]
