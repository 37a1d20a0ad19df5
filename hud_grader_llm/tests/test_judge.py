"""Criteria in, a tree of verdicts out; whatever goes wrong is an error of the grade, never a value."""

import asyncio
import base64
import itertools
import json
from typing import Any

import pytest

from hud.errors import GraderError
from hud.graders import LLMJudgeGrader
from hud.testing.llm import Ask, Fault, ModelServer, Turn, first, script
from hud.testing.llm.http import HttpReply, HttpRequest, HttpServer
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
async def test_a_model_that_hangs_leaves_time_for_the_next_and_the_deadline_holds_for_both() -> None:
    def hangs(ask: Ask) -> Fault | None:
        return Fault("hang") if ask.model in ("first", "third") else None

    async with ModelServer(verdict("MET"), faults=hangs) as server:
        options: dict[str, Any] = {"answer": "a", "criteria": ["c"], "base_url": server.openai_url}
        score = await LLMJudgeGrader.grade(model=["first", "second"], deadline_s=4.0, **options)
        assert ((score.children or [score])[0].info or {})["model"] == "second"
        async with asyncio.timeout(4.0):
            with pytest.raises(GraderError, match="third did not answer") as failed:
                await LLMJudgeGrader.grade(model=["first", "third"], deadline_s=1.0, **options)
        assert failed.value.retryable


@pytest.mark.parametrize(
    "body",
    [{"error": {"message": "overloaded"}}, {"choices": []}, {"choices": [{"message": {"content": 5}}]}],
)
async def test_the_next_model_is_asked_where_a_reply_is_no_message(body: dict[str, Any]) -> None:
    proper = {"choices": [{"message": {"content": '{"criterion_status": "MET"}'}, "finish_reason": "stop"}]}

    async def answer(request: HttpRequest) -> HttpReply:
        model = json.loads(request.body)["model"]
        return HttpReply(200, json.dumps(body if model == "first" else proper).encode())

    server = HttpServer(answer)
    await server.start()
    try:
        options: dict[str, Any] = {"answer": "a", "criteria": ["c"], "base_url": f"{server.url}/v1"}
        score = await LLMJudgeGrader.grade(model=["first", "second"], **options)
        assert score.value == 1.0
        with pytest.raises(GraderError, match="no openai-chat message"):
            await LLMJudgeGrader.grade(model="first", **options)
    finally:
        await server.close()


async def test_the_majority_stands_where_one_vote_could_not_be_had() -> None:
    refusal = Fault.of_status(403, message="not today")
    async with ModelServer(verdict("MET"), faults=first(refusal)) as server:
        score = await LLMJudgeGrader.grade(answer="a", criteria=["c"], votes=3, base_url=server.url)
        info = (score.children or [score])[0].info or {}
        assert score.value == 1.0
        assert info["agreement"] == pytest.approx(2 / 3)
        assert any("not today" in vote["reason"] for vote in info["votes"])
    async with ModelServer(verdict("MET"), faults=first(refusal, refusal)) as server:
        with pytest.raises(GraderError, match=r"no majority among 3 votes: .*not today"):
            await LLMJudgeGrader.grade(answer="a", criteria=["c"], votes=3, base_url=server.url)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"votes": 0}, "votes=0"),
        ({"votes": "3"}, "votes='3'"),
        ({"model": 5}, "model=5"),
        ({"model": ["a", ""]}, "a name or a list of names"),
        ({"criteria": {"is good": 2}}, "criteria must be a list"),
        ({"criteria": 5}, "criteria must be a list"),
        ({"criteria": [...]}, "Ellipsis"),
        ({"images": [b"png"]}, "image blocks"),
        ({"images": [{"type": "text", "text": "x"}]}, "image blocks"),
        ({"base_url": "localhost:8000"}, "no address"),
    ],
)
async def test_a_wrong_argument_is_named_and_asks_nothing(wrong: dict[str, Any], message: str) -> None:
    async with ModelServer(verdict("MET")) as server, asyncio.timeout(2.0):
        options: dict[str, Any] = {"answer": "a", "criteria": ["c"], "base_url": server.url} | wrong
        with pytest.raises(GraderError, match=message):
            await LLMJudgeGrader.grade(**options)
        assert not server.asks


async def test_criteria_of_one_text_have_names_of_their_own() -> None:
    criteria = ["x", "x", {"requirement": "y", "name": "x-1"}]
    async with ModelServer(verdict("MET")) as server:
        score = await LLMJudgeGrader.grade(answer="a", criteria=criteria, base_url=server.url)
    names = [child.name for child in score.children or ()]
    assert len(set(names)) == 3
    assert names[2] == "x-1"


def picture(text: str) -> dict[str, str]:
    return {"type": "image", "data": base64.b64encode(text.encode()).decode(), "mimeType": "image/png"}


def shown_images(ask: Ask) -> dict[str, str]:
    """The images of a request, each by the text before it."""
    blocks = ask.body["messages"][-1]["content"]
    return {
        before["text"]: base64.b64decode(block["source"]["data"]).decode()
        for before, block in itertools.pairwise(blocks)
        if block["type"] == "image"
    }


async def test_images_are_named_where_they_are_shown_and_the_last_are_kept() -> None:
    trace = Trace()
    for number in range(10):
        call = MCPToolCall("look", {}, str(number))
        trace.record(ToolStep(call=call, result=MCPToolResult([picture(f"seen {number}")])))
    async with ModelServer(verdict("MET")) as server:
        score = await LLMJudgeGrader.grade(
            answer=[picture("answer")], trace=trace, criteria=["c"], base_url=server.url
        )
        assert (score.info or {})["cut"] == ["trajectory: 3 of 10 images left out, the earliest"]
        shown = shown_images(server.asks[0])
        assert list(shown.values()) == [*(f"seen {n}" for n in range(3, 10)), "answer"]
        assert shown["[image 4]"] == "seen 3"
        assert "| [3] look returned [image 4]: " in server.asks[0].prompt
        assert "<response>\n| [image 11]" in server.asks[0].prompt


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
