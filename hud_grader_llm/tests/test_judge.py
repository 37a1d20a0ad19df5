"""Criteria in, a tree of verdicts out; whatever goes wrong is an error of the grade, never a value."""

import asyncio
import json
from typing import Any

import pytest

from hud.errors import GraderError
from hud.graders import LLMJudgeGrader
from hud.testing.llm import Ask, Fault, ModelServer, Turn, first, script
from hud.types import AgentStep, Answer, MCPToolCall, MCPToolResult, ToolStep, Trace
from hud_grader_llm import Criterion
from hud_grader_llm.testing import asked_criterion, quoted_response, verdict

pytestmark = pytest.mark.anyio


def met_if_named(ask: Ask) -> Turn:
    """A judge that finds a criterion met where the response holds its first word."""
    word = asked_criterion(ask).split()[0]
    return verdict("MET" if word in quoted_response(ask) else "UNMET", f"looked for {word}")


@pytest.mark.parametrize(
    "criteria",
    [
        ["alpha is named", ("beta is named", 3.0)],
        [["alpha is named", 1], ["beta is named", 3]],
        [{"requirement": "alpha is named"}, {"criterion": "beta is named", "weight": 3, "name": "b"}],
        [Criterion("alpha is named"), Criterion("beta is named", 3.0)],
    ],
)
async def test_every_form_of_criteria_gives_a_weighted_tree(criteria: list[Any]) -> None:
    async with ModelServer(met_if_named) as server:
        score = await LLMJudgeGrader.grade(answer="only alpha", criteria=criteria, base_url=server.url)
    assert score.value == pytest.approx(0.25)
    assert score.weight == 1.0
    assert score.children is not None
    assert [(child.value, child.weight) for child in score.children] == [(1.0, 1.0), (0.0, 3.0)]
    info = score.children[0].info or {}
    assert info["verdict"] == "MET"
    assert info["reason"] == "looked for alpha"
    assert info["model"] == "claude-haiku-4-5"
    assert json.loads(info["raw"][0])["criterion_status"] == "MET"
    assert info["prompt_tokens"] > 0
    assert info["cost_usd"] > 0
    assert score.model_validate_json(score.model_dump_json()) == score


@pytest.mark.parametrize(
    ("answer", "criteria", "value"),
    [
        ("good bad", [("good", 1), ("bad", -0.4)], 0.6),
        ("bad", [("good", 1), ("bad", -1)], 0.0),
        ("bad", [("bad", -1), ("worse", -3)], 0.75),
        ("fine", [("bad", -1)], 1.0),
    ],
)
async def test_faults_count_against_the_score_within_0_and_1(
    answer: str, criteria: list[Any], value: float
) -> None:
    async with ModelServer(met_if_named) as server:
        score = await LLMJudgeGrader.grade(answer=answer, criteria=criteria, base_url=server.url)
    assert score.value == pytest.approx(value)


@pytest.mark.parametrize("path", ["", "/v1"])
async def test_both_dialects_are_asked_for_a_structured_reply(path: str) -> None:
    async with ModelServer(verdict("MET")) as server:
        model = "my-model" if path else "claude-haiku-4-5"
        await LLMJudgeGrader.grade(answer="a", criteria=["c"], model=model, base_url=server.url + path)
        ask = server.asks[0]
        assert ask.dialect == ("openai-chat" if path else "anthropic")
        assert ask.schema is not None
        assert ask.schema["properties"]["criterion_status"]["enum"] == ["MET", "UNMET", "CANNOT_DECIDE"]


async def test_a_server_without_structured_output_is_asked_without_it() -> None:
    async with ModelServer(
        verdict("MET"), faults=first(Fault.of_status(400, message="response_format is not supported"))
    ) as server:
        options: dict[str, Any] = {"model": "local", "base_url": server.openai_url}
        for answer in ("a", "b"):
            score = await LLMJudgeGrader.grade(answer=answer, criteria=["c"], **options)
            assert score.value == 1.0
        assert [ask.schema is not None for ask in server.asks] == [True, False, False]


@pytest.mark.parametrize(
    "reply",
    [
        'Sure! ```json\n{"criterion_status": "MET", "explanation": "x"}\n```',
        '{"criterion_status": "met", "reason": "x"} trailing words',
        "The criterion is MET.",
    ],
)
async def test_replies_are_read_tolerantly(reply: str) -> None:
    async with ModelServer(Turn(reply)) as server:
        score = await LLMJudgeGrader.grade(answer="a", criteria=["c"], base_url=server.url)
        assert score.value == 1.0
        assert len(server.asks) == 1


@pytest.mark.parametrize(
    "broken",
    [
        Turn("I like it."),
        Turn(),
        Turn('{"criterion_status": "PERHAPS"}'),
        Turn('{"criterion_status": "MET"} {"criterion_status": "UNMET"}'),
        Turn("It is MET or UNMET."),
        Turn('{"explanation": "long', stop="length"),
    ],
)
async def test_an_unreadable_reply_is_mended_once(broken: Turn) -> None:
    async with ModelServer(script(broken, verdict("UNMET"))) as server:
        score = await LLMJudgeGrader.grade(answer="a", criteria=["c"], base_url=server.url)
        assert score.value == 0.0
        assert len(server.asks) == 2
        assert "could not be read" in server.asks[1].last.text
    async with ModelServer(broken) as server:
        with pytest.raises(GraderError, match="could not decide"):
            await LLMJudgeGrader.grade(answer="a", criteria=["c"], base_url=server.url)
        assert len(server.asks) == 2


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (verdict("CANNOT_DECIDE", "no file was shown"), "cannot decide: no file was shown"),
        (Turn(refusal="I cannot help with that."), "refused to judge"),
    ],
)
async def test_a_judge_that_does_not_decide_is_an_error(turn: Turn, message: str) -> None:
    async with ModelServer(turn) as server:
        with pytest.raises(GraderError, match=message) as failed:
            await LLMJudgeGrader.grade(answer="a", criteria=["is good"], base_url=server.url)
        assert "criterion 'is good'" in str(failed.value)


async def test_no_criteria_are_an_error_not_a_zero() -> None:
    with pytest.raises(GraderError, match="no criteria"):
        await LLMJudgeGrader.grade(answer="a", criteria=[])


async def test_an_unreachable_judge_says_what_to_set() -> None:
    with pytest.raises(GraderError, match="ANTHROPIC_API_KEY"):
        await LLMJudgeGrader.grade(answer="a", criteria=["c"])


@pytest.mark.parametrize("dialect", ["anthropic", "openai-chat"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault.of_status(429, retry_after_s=0.01),
        Fault.of_status(500),
        Fault.of_status(529),
        Fault("cut", after=1),
        Fault("garbage"),
    ],
)
async def test_passing_failures_are_retried(dialect: str, fault: Fault) -> None:
    async with ModelServer(verdict("MET"), faults=first(fault, fault)) as server:
        url = server.url if dialect == "anthropic" else server.openai_url
        score = await LLMJudgeGrader.grade(answer="a", criteria=["c"], base_url=url)
        assert score.value == 1.0


async def test_a_failure_that_lasts_ends_at_the_deadline_as_a_retryable_error() -> None:
    async with ModelServer(verdict("MET"), faults=lambda _: Fault.of_status(500)) as server:
        with pytest.raises(GraderError, match="500") as failed:
            await LLMJudgeGrader.grade(answer="a", criteria=["c"], base_url=server.url, deadline_s=1.0)
        assert failed.value.retryable


async def test_one_criterion_that_fails_fails_the_grade_and_cancels_the_others() -> None:
    hung = asyncio.Event()

    async def rule(ask: Ask) -> Turn:
        if asked_criterion(ask) == "slow":
            await hung.wait()
        return verdict("CANNOT_DECIDE")

    async with ModelServer(rule) as server:
        with pytest.raises(GraderError, match="quick"):
            await LLMJudgeGrader.grade(answer="a", criteria=["quick", "slow"], base_url=server.url)
        hung.set()


async def test_criteria_are_judged_at_the_same_time() -> None:
    async with ModelServer(verdict("MET"), latency_s=0.2) as server:
        await LLMJudgeGrader.grade(answer="a", criteria=[f"c{i}" for i in range(8)], base_url=server.url)
        assert server.peak_in_flight >= 4


async def test_votes_are_counted_and_the_agreement_is_reported() -> None:
    def rule(ask: Ask) -> Turn:
        return verdict("UNMET" if ask.number == 1 else "MET")

    async with ModelServer(rule) as server:
        score = await LLMJudgeGrader.grade(answer="a", criteria=["c"], votes=3, base_url=server.url)
        assert score.children is not None
        info = score.children[0].info or {}
        assert score.value == 1.0
        assert info["agreement"] == pytest.approx(2 / 3)
        assert sorted(vote["verdict"] for vote in info["votes"]) == ["MET", "MET", "UNMET"]


async def test_votes_without_a_majority_are_an_error() -> None:
    def rule(ask: Ask) -> Turn:
        return verdict(["MET", "UNMET", "CANNOT_DECIDE"][ask.number % 3])

    async with ModelServer(rule) as server:
        with pytest.raises(GraderError, match="no majority among 3 votes"):
            await LLMJudgeGrader.grade(answer="a", criteria=["c"], votes=3, base_url=server.url)


async def test_identical_questions_are_asked_once_unless_the_author_says_otherwise() -> None:
    async with ModelServer(verdict("MET")) as server:
        for _ in range(3):
            score = await LLMJudgeGrader.grade(answer="a", criteria=["c"], votes=2, base_url=server.url)
        assert len(server.asks) == 2
        assert score.children is not None
        assert all(vote["cached"] for vote in (score.children[0].info or {})["votes"])
        assert (score.info or {})["usage"]["llm_call_count"] == 0
        await LLMJudgeGrader.grade(answer="a", criteria=["c"], cache=False, base_url=server.url)
        await LLMJudgeGrader.grade(answer="b", criteria=["c"], base_url=server.url)
        assert len(server.asks) == 4


async def test_a_cache_folder_outlives_the_process_memory(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("HUD_JUDGE_CACHE", str(tmp_path))
    async with ModelServer(verdict("MET")) as server:
        await LLMJudgeGrader.grade(answer="a", criteria=["c"], base_url=server.url)
        assert len(list(tmp_path.rglob("*.json"))) == 1
        await LLMJudgeGrader.grade(answer="a", criteria=["c"], base_url=server.url)
        assert len(server.asks) == 1


async def test_the_next_model_is_asked_where_one_refuses() -> None:
    def rule(ask: Ask) -> Turn:
        return Turn(refusal="no") if ask.model == "first" else verdict("MET")

    async with ModelServer(rule) as server:
        score = await LLMJudgeGrader.grade(
            answer="a", criteria=["c"], model=["first", "second"], base_url=server.openai_url
        )
        assert score.children is not None
        info = score.children[0].info or {}
        assert info["model"] == "second"
        assert "first refused to judge" in info["failures"][0]


async def test_images_answers_and_whole_trajectories_are_shown() -> None:
    picture = {"type": "image", "data": "QUJD", "mimeType": "image/png"}
    trace = Trace()
    trace.record(AgentStep(content="I list.", tool_calls=[MCPToolCall("bash", {"command": "ls"}, "1")]))
    trace.record(
        ToolStep(call=MCPToolCall("bash", {"command": "ls"}, "1"), result=MCPToolResult.of_text("a.txt"))
    )
    async with ModelServer(verdict("MET")) as server:
        options: dict[str, Any] = {"criteria": ["c"], "base_url": server.url}
        await LLMJudgeGrader.grade(answer=[{"type": "text", "text": "see"}, picture], **options)
        assert server.asks[0].images == 1
        await LLMJudgeGrader.grade(answer=Answer(content={"n": 1}, raw='{"n": 1}'), **options)
        assert '| {"n": 1}' in server.asks[1].prompt
        await LLMJudgeGrader.grade(trace=trace, **options)
        assert '| [0] agent calls bash {"command": "ls"}' in server.asks[2].prompt
        assert "| [1] bash returned: a.txt" in server.asks[2].prompt


async def test_what_was_cut_is_said() -> None:
    async with ModelServer(verdict("MET")) as server:
        score = await LLMJudgeGrader.grade(answer="x" * 200_000, criteria=["c"], base_url=server.url)
        assert (score.info or {})["cut"] == ["response: 80,000 of 200,000 characters left out of the middle"]
        assert len(server.asks[0].prompt) < 130_000


async def test_keys_stay_out_of_the_result() -> None:
    async with ModelServer(verdict("MET"), key="s3cret-key") as server:
        score = await LLMJudgeGrader.grade(
            answer="a", criteria=["c"], base_url=server.url, api_key="s3cret-key"
        )
        assert "s3cret-key" not in score.model_dump_json()
        with pytest.raises(GraderError) as failed:
            await LLMJudgeGrader.grade(answer="b", criteria=["c"], base_url=server.url, api_key="wr0ng-key")
        assert "wr0ng-key" not in str(failed.value)
