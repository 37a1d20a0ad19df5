"""A job's trace as a collector receives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hud_sink_otel.plugin as plugin
from hud.eval import Job, LocalRuntime, Taskset
from hud.eval.run import Run
from hud.telemetry import instrument
from hud.testing import isolated_host
from hud.types import AgentStep, MCPToolCall, MCPToolResult, SubagentStep, ToolStep, Trace, Usage
from hud_sink_otel.testing import Receiver, Span, receiving

pytestmark = pytest.mark.anyio

ENV = """
import hud
from hud.environment import Environment

env = Environment("sums", version="1.2.0")

@hud.instrument
async def check(answer: str, right: str) -> float:
    return float(answer == right)

@env.template()
async def add(a: int = 1):
    answer = yield f"What is {a} + 1?"
    if answer == "crash":
        raise ValueError("the grader broke")
    yield {"score": await check(answer, str(a + 1)), "content": "compared", "subscores": [
        {"name": "same", "weight": 1.0, "value": 1.0},
    ]}
"""


@instrument(name="work it out")
def work_it_out(a: int) -> str:
    return str(a + 1)


async def adds(run: Run) -> str:
    a = run.args["a"]
    usage = Usage(prompt_tokens=100, completion_tokens=20, cached_tokens=60, cost_usd=0.25)
    run.record(
        AgentStep(
            content="I add",
            reasoning="carry",
            model="claude-sonnet-4-5",
            usage=usage,
            finish_reason="tool_use",
            tool_calls=[MCPToolCall("bash", {"command": "expr"}, id="call-1")],
        )
    )
    result = MCPToolResult([{"type": "image", "data": "aGk=", "mimeType": "image/png"}])
    run.record(ToolStep(call=MCPToolCall("bash", {"command": "expr"}, id="call-1"), result=result))
    nested = Trace()
    nested.record(AgentStep(content="nested", model="gpt-5"))
    run.record(SubagentStep(subagent=nested))
    return work_it_out(a)


def taskset(folder: Path, *numbers: int) -> Taskset:
    (folder / "env.py").write_text(ENV)
    [row] = Taskset.from_file(folder / "env.py")
    rows = [row.model_copy(update={"args": {"a": n}, "slug": f"add-{n}"}) for n in numbers or (1,)]
    return Taskset("sums", rows, source=folder / "env.py")


async def evaluate(folder: Path, agent: Any = adds, numbers: tuple[int, ...] = (1,)) -> Job:
    with isolated_host(plugin):
        return await taskset(folder, *numbers).run(
            agent, runtime=LocalRuntime(folder / "env.py"), jobs_dir=folder / "jobs"
        )


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receiver]:
    monkeypatch.chdir(tmp_path)
    with receiving() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        yield found


def path_of(receiver: Receiver, span: Span) -> list[str]:
    """Return the names from the trace's root down to a span."""
    by_id = {known.id: known for known in receiver.spans}
    names = [span.name]
    while span.parent:
        span = by_id[span.parent]
        names.append(span.name)
    return names[::-1]


async def test_a_job_is_one_trace_from_the_job_down_to_each_call(receiver: Receiver, tmp_path: Path) -> None:
    job = await evaluate(tmp_path, numbers=(1, 2))
    assert job.remarks == []
    assert {span.trace for span in receiver.spans} == {job.id}
    first = next(span for span in receiver.spans if span.attributes.get("hud.task.slug") == "add-1")
    mine = [span for span in receiver.spans if path_of(receiver, span)[1:2] == ["rollout add-1"]]
    assert first in mine
    paths = {" > ".join(path_of(receiver, span)[1:]) for span in mine}
    assert paths == {
        "rollout add-1",
        "rollout add-1 > place",
        "rollout add-1 > connect",
        "rollout add-1 > start",
        "rollout add-1 > invoke_agent adds",
        "rollout add-1 > invoke_agent adds > chat claude-sonnet-4-5",
        "rollout add-1 > invoke_agent adds > execute_tool bash",
        "rollout add-1 > invoke_agent adds > invoke_agent subagent",
        "rollout add-1 > invoke_agent adds > invoke_agent subagent > chat gpt-5",
        "rollout add-1 > invoke_agent adds > work it out",
        "rollout add-1 > grade",
        "rollout add-1 > grade > check",
        "rollout add-1 > release",
    }
    assert all(0 < span.start <= span.end for span in receiver.spans)
    assert len({span.id for span in receiver.spans}) == len(receiver.spans)
    by_id = {span.id: span for span in receiver.spans}
    for span in receiver.spans:
        if span.parent and "hud.side" not in span.attributes:
            assert by_id[span.parent].start <= span.start + 1_000_000, (span.name, "begins before its parent")


async def test_names_are_those_of_the_conventions(receiver: Receiver, tmp_path: Path) -> None:
    job = await evaluate(tmp_path)
    chat = receiver.named("chat claude-sonnet-4-5")
    assert chat.kind == 3, "a client's"
    assert chat.attributes["gen_ai.operation.name"] == "chat"
    assert chat.attributes["gen_ai.provider.name"] == "anthropic"
    assert chat.attributes["gen_ai.request.model"] == "claude-sonnet-4-5"
    assert chat.attributes["gen_ai.usage.input_tokens"] == 100
    assert chat.attributes["gen_ai.usage.output_tokens"] == 20
    assert chat.attributes["gen_ai.usage.cache_read.input_tokens"] == 60
    assert chat.attributes["gen_ai.response.finish_reasons"] == ["tool_use"]
    assert chat.attributes["hud.usage.cost_usd"] == 0.25
    tool = receiver.named("execute_tool bash")
    assert tool.attributes["gen_ai.operation.name"] == "execute_tool"
    assert tool.attributes["gen_ai.tool.call.id"] == "call-1"
    invoked = receiver.named("invoke_agent adds")
    assert invoked.attributes["gen_ai.agent.name"] == "adds"
    rollout = receiver.named("rollout add-1")
    run = job.runs[0]
    assert rollout.attributes["gen_ai.conversation.id"] == run.trace_id
    assert rollout.attributes["hud.reward"] == 1.0
    assert rollout.attributes["hud.environment.version"] == "1.2.0"
    verdicts = [attributes for name, attributes in rollout.events if name == "gen_ai.evaluation.result"]
    assert [(v["gen_ai.evaluation.name"], v["gen_ai.evaluation.score.value"]) for v in verdicts] == [
        ("add", 1.0),
        ("same", 1.0),
    ]
    assert verdicts[0]["gen_ai.evaluation.explanation"] == "compared"
    whole = receiver.named("job sums")
    assert whole.parent == ""
    assert whole.attributes["hud.job.runs"] == 1
    assert whole.attributes["hud.job.mean_reward"] == 1.0
    assert whole.attributes["hud.version.hud-core"]
    assert whole.attributes["hud.source.digest"].startswith("sha256:")
    assert whole.resource["service.name"] == "hud"


@pytest.mark.slow
async def test_messages_are_sent_only_where_that_is_asked_for(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await evaluate(tmp_path)
    everything = json.dumps([span.attributes for span in receiver.spans])
    assert "What is 1 + 1" not in everything
    assert "carry" not in everything
    receiver.spans.clear()
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    await evaluate(tmp_path)
    [prompt] = json.loads(receiver.named("invoke_agent adds").attributes["gen_ai.input.messages"])
    assert prompt == {"role": "user", "parts": [{"type": "text", "content": "What is 1 + 1?"}]}
    [said] = json.loads(receiver.named("chat claude-sonnet-4-5").attributes["gen_ai.output.messages"])
    assert [part["type"] for part in said["parts"]] == ["reasoning", "text", "tool_call"]
    assert said["finish_reason"] == "tool_use"
    tool = receiver.named("execute_tool bash").attributes
    assert tool["gen_ai.tool.call.arguments"] == '{"command": "expr"}'
    assert tool["gen_ai.tool.call.result"] == "[image/png, 4 characters of base64]"


async def test_a_failed_rollout_is_an_error_with_its_exception(receiver: Receiver, tmp_path: Path) -> None:
    async def crashes(run: Run) -> str:
        return "crash"

    await evaluate(tmp_path, crashes)
    rollout = receiver.named("rollout add-1")
    assert rollout.failed
    assert "hud.reward" not in rollout.attributes
    assert rollout.attributes["hud.failure.kind"] == "task"
    [exception] = [attributes for name, attributes in rollout.events if name == "exception"]
    assert "the grader broke" in exception["exception.message"]
    assert receiver.named("grade").failed
    assert not receiver.named("start").failed


async def test_secrets_do_not_leave(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", "swordfish-of-acme")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")

    async def leaks(run: Run) -> str:
        run.record(AgentStep(content="the key is swordfish-of-acme", model="m"))
        raise RuntimeError("refused swordfish-of-acme")

    await evaluate(tmp_path, leaks)
    everything = repr(receiver.spans)
    assert "[redacted]" in everything
    assert "swordfish" not in everything


async def test_hud_toml_names_the_collector_and_a_trace_per_rollout(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    (tmp_path / "hud.toml").write_text(
        f'[sinks.otel]\nendpoint = "{receiver.url}"\ntrace = "rollout"\nheaders = {{ x-team = "evals" }}\n'
    )
    job = await evaluate(tmp_path, numbers=(1, 2))
    assert {headers["x-team"] for headers in receiver.headers} == {"evals"}
    rollouts = [span for span in receiver.spans if span.name.startswith("rollout")]
    assert {span.trace for span in rollouts} == {run.trace_id for run in job.runs}
    whole = receiver.named("job sums")
    assert [span.links for span in rollouts] == [[whole.id], [whole.id]]
    assert all(span.parent == "" for span in rollouts)


async def test_without_an_endpoint_nothing_is_imported_or_sent(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import asyncio, sys; from hud.plugins import OpenSink; from hud_sink_otel import plugin; "
        "assert asyncio.run(plugin.hud_open_sink(OpenSink(job_id='j', name='n'))) is None; "
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')], 'the SDK was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
