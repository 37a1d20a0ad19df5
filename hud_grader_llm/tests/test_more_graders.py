"""Comparison, ranking, equivalence, trajectories, rubrics, calibration."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hud.errors import ConfigError, GraderError
from hud.graders import LLMJudgeGrader
from hud.testing.llm import Ask, ModelServer, Turn
from hud.types import AgentStep, MCPToolCall, MCPToolResult, SubagentStep, ToolStep, Trace, Usage
from hud_grader_llm import Criterion, PairwiseGrader, ReferenceGrader, Rubric, TrajectoryGrader, compare, rank
from hud_grader_llm.calibration import agreement, calibrate, read_labelled
from hud_grader_llm.command import judge
from hud_grader_llm.testing import asked_criterion, quoted_response, verdict


def of(key: str, choice: str) -> Turn:
    return Turn(json.dumps({"explanation": "because", key: choice}))


def responses(ask: Ask) -> tuple[str, str]:
    lines = ask.prompt.split("\n")
    return (
        lines[lines.index("<first response>") + 1].removeprefix("| "),
        lines[lines.index("<second response>") + 1].removeprefix("| "),
    )


def longer(ask: Ask) -> Turn:
    first, second = responses(ask)
    return of(
        "better", "TIE" if len(first) == len(second) else "FIRST" if len(first) > len(second) else "SECOND"
    )


@pytest.mark.anyio
@pytest.mark.parametrize(("a", "b", "winner"), [("aaa", "a", "a"), ("a", "aaa", "b"), ("aa", "bb", "tie")])
async def test_the_better_answer_wins_in_both_orders(a: str, b: str, winner: str) -> None:
    async with ModelServer(longer) as server:
        result = await compare(a, b, base_url=server.url)
        assert result.winner == winner
        assert result.consistent
        assert len(server.asks) == 2


@pytest.mark.anyio
async def test_a_judge_that_favours_a_place_makes_a_tie() -> None:
    async with ModelServer(of("better", "FIRST")) as server:
        score = await PairwiseGrader.grade(answer="x", baseline="y", base_url=server.url, api_key="k3y")
        assert score.value == 0.5
        assert (score.info or {})["consistent"] is False
        assert "k3y" not in score.model_dump_json()


@pytest.mark.anyio
async def test_what_cannot_be_compared_is_a_grader_error() -> None:
    async with ModelServer(of("better", "FIRST")) as server:
        wrongs: list[dict[str, Any]] = [{"criteria": [("x", 0)]}, {"votes": 0}, {"model": []}]
        for wrong in wrongs:
            with pytest.raises(GraderError):
                await compare("a", "b", base_url=server.url, **wrong)
            with pytest.raises(GraderError):
                await rank(["a", "b"], base_url=server.url, **wrong)
        assert not server.asks


@pytest.mark.anyio
async def test_the_images_of_two_responses_are_told_apart() -> None:
    def picture(data: str) -> list[dict[str, str]]:
        return [{"type": "image", "data": data, "mimeType": "image/png"}]

    async with ModelServer(of("better", "FIRST")) as server:
        await compare(picture("QUFB"), picture("QkJC"), base_url=server.url)
        ask = next(
            ask for ask in server.asks if ask.body["messages"][0]["content"][1]["source"]["data"] == "QUFB"
        )
        assert ask.images == 2
        assert "<first response>\n| [image 1]" in ask.prompt
        assert "<second response>\n| [image 2]" in ask.prompt


@pytest.mark.anyio
@pytest.mark.parametrize("most", [60, 6])
async def test_a_group_is_ranked_by_the_share_of_comparisons_won(most: int) -> None:
    answers = ["aa", "a", "aaaa", "aaa", "aaaaa"]
    async with ModelServer(longer) as server:
        scores = await rank(answers, base_url=server.url, most_pairs=most)
        if most == 60:
            assert [(s.info or {})["place"] for s in scores] == [4, 5, 2, 3, 1]
            assert [s.value for s in scores] == [0.25, 0.0, 0.75, 0.5, 1.0]
        assert len(server.asks) == 2 * (10 if most == 60 else 6)
        assert all((s.info or {})["compared"] >= 2 for s in scores)
    with pytest.raises(ValueError, match="at least two"):
        await rank(["one"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "reference", "value", "asked"),
    [
        ("The  cat.", "the cat", 1.0, 0),
        ("", "the cat", 0.0, 0),
        ("a feline", "the cat", 1.0, 1),
        ("a dog", ["the cat", "a lion"], 0.0, 1),
        ("-5", "5", 0.0, 1),
        ("1.5", "15", 0.0, 1),
    ],
)
async def test_an_answer_is_held_to_a_reference(
    answer: str, reference: Any, value: float, asked: int
) -> None:
    def rule(ask: Ask) -> Turn:
        return of("equivalence", "SAME" if quoted_response(ask) == "a feline" else "DIFFERENT")

    async with ModelServer(rule) as server:
        score = await ReferenceGrader.grade(answer=answer, reference=reference, base_url=server.url)
        assert score.value == value
        assert len(server.asks) == asked


def trace() -> Trace:
    made = Trace()
    calls: list[tuple[str, dict[str, Any], bool]] = [
        ("read_file", {"path": "a.py"}, False),
        ("bash", {"command": "pytest -q"}, True),
        ("bash", {"commands": [["git", "push", "--force"]]}, False),
    ]
    for number, (tool, arguments, failed) in enumerate(calls):
        call = MCPToolCall(tool, arguments, str(number))
        made.record(AgentStep(tool_calls=[call], usage=Usage(100, 10)))
        made.record(ToolStep(call=call, result=MCPToolResult.of_text("ok", error=failed)))
    inner = Trace()
    inner.record(
        ToolStep(call=MCPToolCall("web", {"url": "http://x"}, "9"), result=MCPToolResult.of_text("page"))
    )
    made.record(SubagentStep(subagent=inner))
    return made


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({"required_tools": ["bash"]}, True),
        ({"required_tools": ["edit"]}, False),
        ({"forbidden_tools": ["web"]}, False),
        ({"allowed_tools": ["bash", "read_file", "web"]}, True),
        ({"allowed_tools": ["bash"]}, False),
        ({"required_commands": [r"\bpytest\b"]}, True),
        ({"forbidden_commands": [r"git push.*--force"]}, False),
        ({"forbidden_commands": [r"rm -rf"]}, True),
        ({"tool_order": ["read_file", "bash", "web"]}, True),
        ({"tool_order": ["web", "bash"]}, False),
        ({"max_steps": 3}, True),
        ({"max_steps": 2}, False),
        ({"max_calls": 3}, False),
        ({"max_failed_calls": 1}, True),
        ({"max_tokens": 329}, False),
    ],
)
async def test_a_trajectory_is_held_to_rules(rules: dict[str, Any], kept: bool) -> None:
    score = await TrajectoryGrader.grade(trace=trace(), **rules)
    assert score.value == float(kept)
    again = await TrajectoryGrader.grade(trace=trace().model_dump(mode="json"), **rules)
    assert again.value == score.value


@pytest.mark.anyio
async def test_each_rule_is_a_part_of_the_score_and_no_rule_an_error() -> None:
    score = await TrajectoryGrader.grade(trace=trace(), required_tools=["bash", "edit"], max_steps=9)
    assert [(child.name, child.value) for child in score.children or ()] == [
        ("uses bash", 1.0),
        ("uses edit", 0.0),
        ("at most 9 steps", 1.0),
    ]
    wrongs: list[dict[str, Any]] = [{}, {"forbidden_commands": ["("]}, {"forbidden_tools": "bash"}]
    for wrong in wrongs:
        with pytest.raises(GraderError):
            await TrajectoryGrader.grade(trace=trace(), **wrong)


RUBRIC = """
name: sky
question: Why is the sky blue?
votes: 3
criteria:
  - requirement: scattering is named
    weight: 2
    name: cause
  - [sea is blamed, -1]
  - polite
"""


@pytest.mark.anyio
async def test_a_rubric_file_holds_criteria_question_and_votes(tmp_path: Path) -> None:
    path = tmp_path / "rubric.yaml"
    path.write_text(RUBRIC)
    async with ModelServer(verdict("MET")) as server:
        score = await LLMJudgeGrader.grade(answer="a", rubric=path, base_url=server.url)
        assert score.value == pytest.approx(2 / 3)
        assert [child.name for child in score.children or ()] == ["cause", "sea is blamed", "polite"]
        assert len(server.asks) == 9
        assert "| Why is the sky blue?" in server.asks[0].prompt


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("criteria: [", "no YAML"),
        ("criteria: []", "no criteria"),
        ("criterias: [a]", "unknown keys"),
        ("criteria: [[a, b]]", "no \\(text, weight\\)"),
        ("criteria: [a]\nvotes: 0", "votes"),
        ("criteria: [[a, 0]]", "weight 0"),
        ("criteria: [a]\ncriteria: [b]", "criteria occurs twice"),
        ("criteria: [{requirement: a, requirement: b}]", "requirement occurs twice"),
        ("criteria: {a: 1, b: -1}", "must be a list"),
        ("criteria: 5", "must be a list"),
        ("criteria: [a]\nmodel: 5", "model must be"),
        ("criteria: [a]\nmodel: [a, 1]", "model must be"),
        ("criteria: [a]\nquestion: [why]", "question must be a text"),
        ("1: a\ncriterias: [a]", "unknown keys"),
        ("criteria: [{requirement: a, name: [x]}]", "is no text"),
    ],
)
def test_a_wrong_rubric_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Rubric.load(path)


def test_an_empty_question_is_none(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("\ufeffquestion:\nname:\nmodel:\ncriteria: [a]", encoding="utf-8")
    assert Rubric.load(path) == Rubric([Criterion("a")])


@pytest.mark.slow
def test_agreement_is_accuracy_and_kappa() -> None:
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    found = agreement("c", pairs)
    assert found.accuracy == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert (found.false_met, found.false_unmet) == (10, 5)
    assert agreement("c", [(True, True)] * 3).kappa is None


def labelled_file(path: Path) -> Path:
    """Answers labelled by people, whose judge (below) is wrong about one in each criterion and undecided once."""
    rows = []
    for number in range(12):
        good, long = number % 2 == 0, number % 3 == 0
        answer = f"{'good' if good else 'bad'} {'long' if long else 'short'} {number}"
        rows.append({"answer": answer, "labels": {"is good": good, "is long": long}})
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def imperfect(ask: Ask) -> Turn:
    response, criterion = quoted_response(ask), asked_criterion(ask)
    word = criterion.split()[1]
    met = word in response
    if response.endswith(" 4"):
        met = not met
    if response.endswith(" 7"):
        return verdict("CANNOT_DECIDE")
    return verdict("MET" if met else "UNMET", f"on {response}")


def test_the_command_prints_agreement_with_people(tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text("criteria: [is good, is long]")
    labelled = labelled_file(tmp_path / "labelled.jsonl")
    import threading

    import anyio

    ready, done = threading.Event(), threading.Event()
    address: list[str] = []

    async def serve() -> None:
        async with ModelServer(imperfect) as server:
            address.append(server.url)
            ready.set()
            await anyio.to_thread.run_sync(done.wait)

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(20)
        command = ["calibrate", str(rubric), str(labelled), "--base-url", address[0]]
        shown = CliRunner().invoke(judge, command)
        assert shown.exit_code == 0, shown.output
        assert "12 answers, 2 verdicts missing, cost $" in shown.output
        assert "line 5: is good: judge says unmet" in shown.output
        result = json.loads(CliRunner().invoke(judge, [*command, "--json"]).output)
        assert [row["count"] for row in result["criteria"]] == [11, 11]
        assert result["overall"]["accuracy"] == pytest.approx(20 / 22)
        assert [row["accuracy"] for row in result["criteria"]] == [pytest.approx(10 / 11)] * 2
        low = CliRunner().invoke(judge, [*command, "--min-kappa", "0.99"])
        assert low.exit_code == 1
        assert "--min-kappa asks for 0.99" in low.stderr
    finally:
        done.set()
        thread.join()


@pytest.mark.anyio
async def test_only_what_is_labelled_is_asked_and_one_verdict_missing_costs_no_other(tmp_path: Path) -> None:
    rubric = Rubric([Criterion("good it is"), Criterion("odd it is", -2), Criterion("new it is")])
    path = tmp_path / "labelled.jsonl"
    answers = ["a\u2028b", "c"]
    rows = [
        {"answer": a, "labels": {"good it is": True, "odd it is": True}, "question": None} for a in answers
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"\ufeff{text}\r\n", encoding="utf-8")

    def rule(ask: Ask) -> Turn:
        assert "<question>" not in ask.prompt
        odd = asked_criterion(ask).startswith("odd")
        return verdict("CANNOT_DECIDE" if odd and "| c" in ask.prompt else "MET")

    async with ModelServer(rule) as server:
        result = await calibrate(rubric, read_labelled(path, rubric), base_url=server.url)
        assert len(server.asks) == 4
    assert [(row.name, row.count, row.accuracy) for row in result.criteria] == [
        ("good it is", 2, 1.0),
        ("odd it is", 1, 1.0),
    ]
    assert [text.split(":")[0] for text in result.undecided] == ["line 2"]
    assert list(result.unlabelled) == ["new it is"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"labelled\.jsonl:1: no JSON"),
        ('{"answer": "a"}', "needs `labels`"),
        ('{"answer": "a", "labels": {"is god": true}}', "no criterion is called 'is god'"),
        ('{"answer": "a", "labels": {"is good": "yes"}}', "give true or false"),
        ("", "no labelled answers"),
    ],
)
def test_a_wrong_label_file_is_named_before_anything_is_asked(
    tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "rubric.yaml").write_text("criteria: [is good]")
    (tmp_path / "labelled.jsonl").write_text(line)
    result = CliRunner().invoke(
        judge, ["calibrate", str(tmp_path / "rubric.yaml"), str(tmp_path / "labelled.jsonl")]
    )
    assert isinstance(result.exception, ConfigError)
    assert re.search(message, str(result.exception)), result.exception
