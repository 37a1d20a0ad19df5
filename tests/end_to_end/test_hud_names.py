"""Programs written with HUD v6's names, keywords and call shapes run as they are; what differs is in docs/compat.md."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from mcp.types import TextContent

import hud
from hud.agents import create_agent
from hud.clients import HudClient
from hud.environment import Environment, load_environment
from hud.environment.server import TaskRunner, bind
from hud.eval import LocalRuntime, Runtime, Taskset, rollout
from hud.graders import combine_any
from hud.types import (
    ContentResult,
    MCPToolResult,
    RuntimeConfig,
    RuntimeGPU,
    RuntimeLimits,
    RuntimeResources,
    SubScore,
    Task,
)

COMPAT = (Path(__file__).parents[2] / "docs" / "compat.md").read_text(encoding="utf-8")

NAMES = {
    "hud": "Chat ComposeProject Connection DockerRuntime Environment Grade HUDRuntime HostedRuntime Job "
    "LocalRuntime Run Runtime RuntimeConfig RuntimeGPU RuntimeLimits RuntimeResources RuntimeTPU "
    "SubprocessRuntime SyncPlan Task Taskset Trace TrainingClient connect instrument",
    "hud.environment": "DEFAULT_SYSTEM_MOUNTS Answer Capability DataFileArg DataFileRef DataFilesArg Environment "
    "GradingArg Mount MountKind Peer PromptArg Workspace WorkspaceRoute load_environment",
    "hud.environment.server": "serve bind TaskRunner",
    "hud.capabilities": "Capability Connection CapabilityClient SSHClient SSHConnectionError MCPClient CDPClient "
    "RFBClient RobotClient CDPError get_mcp_trace_id",
    "hud.clients": "connect HudClient Manifest ServerInfo HudProtocolError DEFAULT_READY_TIMEOUT",
    "hud.eval": "Task Taskset Job Run Grade rollout Chat Provider Runtime RuntimeConfig RuntimeResources RuntimeGPU "
    "RuntimeTPU RuntimeLimits ComposeProject DockerBindMount Shared LocalRuntime SubprocessRuntime "
    "DockerRuntime ModalRuntime DaytonaRuntime HUDRuntime HostedRuntime",
    "hud.types": "Step TaskCall Trace MCPToolCall MCPToolResult AgentType",
    "hud.agents": "ClaudeAgent ClaudeCLIAgent ClaudeCLIConfig CodexCLIAgent CodexCLIConfig GeminiAgent MCPAgent "
    "OpenAIAgent OpenAIChatAgent create_agent",
    "hud.agents.base": "Agent",
    "hud.agents.types": "AgentConfig ToolAgentConfig ClaudeConfig OpenAIConfig GeminiConfig OpenAIChatConfig "
    "ClaudeCLIConfig CodexCLIConfig AgentStep ToolStep SubagentStep Citation Sample Usage ContentResult",
    "hud.telemetry": "instrument flush get_current_trace_id queue_span set_trace_context get_trace_headers",
    "hud.settings": "settings Settings",
    "hud.graders": "normalize exact_match contains contains_any contains_all numeric_match f1_score Grader BashGrader "
    "LLMJudgeGrader combine combine_any combine_all SubScore EvaluationResult",
    "hud.errors": "HudException HudRequestError HudReplyError HudAuthenticationError HudRateLimitError "
    "HudTimeoutError HudNetworkError HudClientError HudConfigError HudEnvVarError HudToolNotFoundError "
    "HudMCPError HudDeprecationWarning",
}
CONFIGS = {
    "ToolAgentConfig": "timeout_seconds model_name model gateway auto_respond max_steps tool_timeout_seconds "
    "system_prompt citations_enabled stop_on hosted_tools screenshot_encoding model_client",
    "ClaudeConfig": "max_tokens use_computer_beta thinking max_tool_result_images",
    "OpenAIConfig": "max_output_tokens temperature reasoning tool_choice text truncation parallel_tool_calls "
    "prompt_cache_key",
    "GeminiConfig": "temperature top_p top_k max_output_tokens excluded_predefined_functions thinking_level "
    "include_thoughts max_tool_result_chars",
    "OpenAIChatConfig": "checkpoint api_key base_url completion_kwargs",
    "ClaudeCLIConfig": "system_prompt permission_mode max_steps reasoning_effort allowed_tools",
    "CodexCLIConfig": "sandbox reasoning_effort",
}
MEMBERS = {
    "hud.environment:Environment": "template initialize shutdown add_capability capability workspace gym start stop "
    "templates bind_connections bind_workspace_routes release_session _on_task_teardown",
    "hud.environment:Workspace": "start stop capability file_tracking_capability tracks_files ssh_url ssh_host_pubkey "
    "ssh_client_key_path ssh_user bwrap_available owns_netns supports_process_connections addresses "
    "add_peer remove_peer add_process_connection remove_process_connection visiting run launch "
    "bwrap_argv shell_argv session_argv sandbox_pid discard_sandbox terminate_sessions",
    "hud.capabilities:Capability": "ssh mcp cdp rfb robot to_manifest from_manifest",
    "hud.clients:HudClient": "manifest hello binding open list_tasks start_task grade cancel close abort",
    "hud.eval:Task": "shares_verifier_runtime run",
    "hud.eval:Taskset": "from_file from_module from_api to_file items filter exclude environment_names run",
    "hud.eval:Job": "start reward errors results",
    "hud.eval:Run": "client task_id reward evaluation trace_id runtime prompt_messages prompt_text record failed",
    "hud.eval:Grade": "evaluation from_dict ungraded",
    "hud.eval:Runtime": "transports_sessions snapshot_session restore_session",
    "hud.types:Step": "schema_tag emit",
    "hud.types:Trace": "record final collect error is_error is_truncated",
}


def says_why(name: str) -> bool:
    """Whether the page on differences names it, as code."""
    return any(name in re.findall(r"\w+", code) for code in COMPAT.split("`")[1::2])


@pytest.mark.parametrize("module", NAMES)
def test_every_public_name_is_there_or_its_absence_has_a_reason(module: str) -> None:
    found = import_module(module)
    for name in NAMES[module].split():
        assert hasattr(found, name) or says_why(name), f"{module}.{name}"


@pytest.mark.parametrize("place", MEMBERS)
def test_every_member_is_there_or_its_absence_has_a_reason(place: str) -> None:
    module, _, name = place.partition(":")
    cls = getattr(import_module(module), name)
    for member in MEMBERS[place].split():
        assert hasattr(cls, member) or says_why(member), f"{place}.{member}"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_of_a_configuration_is_there_or_its_absence_has_a_reason(name: str) -> None:
    fields = getattr(import_module("hud.agents.types"), name).model_fields
    for field in CONFIGS[name].split():
        assert field in fields or says_why(field), f"{name}.{field}"


def test_keywords_of_functions_are_taken() -> None:
    for function, keywords in (
        (Environment.__init__, "name version capabilities"),
        (Environment("e").template, "id description input returns"),
        (load_environment, "target name args"),
        (hud.connect, "ready_timeout workspace_routes connections"),
        (HudClient.start_task, "id args"),
        (HudClient.grade, "payload"),
        (rollout, "runtime job_id group_id trace_id rollout_timeout connections workspace_routes"),
        (LocalRuntime.__init__, "source env ready_timeout"),
        (combine_any, "weight subscores name"),
    ):
        parameters = inspect.signature(function).parameters
        assert set(keywords.split()) <= set(parameters), (function, parameters)


env = Environment("typed")


@env.template(returns=dict)
async def picks(wanted: Any = None) -> Any:
    answer = yield "Which?"
    yield 1.0 if answer.content == wanted else 0.0


@pytest.mark.anyio
async def test_a_payload_is_the_answer_under_its_name_or_the_answer() -> None:
    server = await bind(env, "127.0.0.1", 0)
    address = Runtime(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with hud.connect(address) as client:
        for payload, answer in (
            ({"answer": {"a": 1}}, {"a": 1}),
            ({"answer": {"answer": 1}}, {"answer": 1}),
            ({"a": 1}, {"a": 1}),
            ({"answer": 1, "b": 2}, {"answer": 1, "b": 2}),
        ):
            await client.start_task(id="picks", args={"wanted": answer})
            assert (await client.grade(payload=payload))["score"] == 1.0, payload
    server.close()
    await server.wait_closed()
    runner = TaskRunner(env.tasks["picks"], {"wanted": {"a": 1}})
    await runner.start()
    assert (await runner.grade({"answer": {"a": 1}}))["score"] == 1.0


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("placed", ["in process", "a process each"])
async def test_an_agents_answer_that_looks_like_a_payload_arrives_whole(placed: str) -> None:
    async def answers(run: hud.Run) -> None:
        run.trace.content = '{"answer": 1}'

    row = Task(env="typed", id="picks", args={"wanted": {"answer": 1}})
    runtime = LocalRuntime(env if placed == "in process" else __file__)
    job = await Taskset("one", [row]).run(answers, runtime=runtime)
    assert job.reward == 1.0, job.errors


@pytest.mark.anyio
async def test_a_trace_tells_what_ended_its_rollout() -> None:
    async def breaks(run: hud.Run) -> None:
        raise RuntimeError("no idea")

    job = await Taskset("one", [picks()]).run(breaks, runtime=LocalRuntime(env))
    [run] = job.runs
    assert (run.trace.is_error, run.trace.status, run.reward) == (True, "error", 0.0)
    assert "no idea" in (run.trace.error or "")
    assert "boom" in (hud.Run.failed("boom").trace.error or "")


def test_older_names_of_values_are_taken() -> None:
    score = SubScore(name="a", value=1, metadata={"x": 1})
    assert (score.info, score.metadata, score.score) == ({"x": 1}, {"x": 1}, 1.0)
    assert SubScore.model_validate(score.model_dump()) == score
    assert score.model_copy(update={"weight": 2.0}).info == {"x": 1}
    with pytest.raises(TypeError):
        SubScore(name="a", value=1, other=1)  # type: ignore[call-arg]
    row = Task(
        env="e",
        id="t",
        runtime_config={"image": "i", "resources": {"gpu": {"type": "H100"}}, "limits": {"run_timeout_s": 5}},  # type: ignore[arg-type]
        verifier={"env": "e", "id": "v"},  # type: ignore[arg-type]
    )
    assert row.runtime_config == RuntimeConfig(
        image="i", resources=RuntimeResources(gpu=RuntimeGPU("H100")), limits=RuntimeLimits(run_timeout_s=5)
    )
    assert row.shares_verifier_runtime
    with pytest.raises(ValueError, match="imagee"):
        Task(env="e", id="t", runtime_config={"imagee": "i"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no agent 'klaude'"):
        create_agent("klaude")
    said = MCPToolResult(content=[TextContent(type="text", text="of MCP")])  # type: ignore[list-item]
    assert (said.text, said.content[0].text) == ("of MCP", "of MCP")  # type: ignore[attr-defined]
    assert MCPToolResult.model_validate_json(said.model_dump_json()) == said
    assert copy.deepcopy(pickle.loads(pickle.dumps(said))) == said
    blocks = ContentResult(output="out", error="err", base64_image="QUJD").to_content_blocks()
    assert [block["type"] for block in blocks] == ["text", "text", "image"]
    assert MCPToolResult(content=blocks).text == "out\nerr"
    assert create_agent("noop") is not None
