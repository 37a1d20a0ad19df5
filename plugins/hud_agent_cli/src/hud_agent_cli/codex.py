"""`CodexCLIAgent`: Codex inside the workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from hud.agents.prices import usage_of
from hud.types import AgentStep, MCPToolCall, MCPToolResult, ToolStep
from hud_agent_cli.program import CLIAgent, CLIConfig, Inside, Invocation, Reader
from hud_agent_cli.relay import NAME

if TYPE_CHECKING:
    from hud.eval.run import Run


class CodexCLIConfig(CLIConfig):
    """What Codex can be told; see the README. `sandbox` is kept for HUD's sake: the workspace is the sandbox."""

    model_name: str = "Codex"
    model: str = Field(
        default="gpt-5.6-sol", validation_alias=CLIConfig.model_fields["model"].validation_alias
    )
    sandbox: Literal["read-only", "workspace-write", "danger-full-access"] = "workspace-write"
    reasoning_effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class CodexCLIAgent(CLIAgent[CodexCLIConfig]):
    """Codex."""

    config_cls: ClassVar[type[Any] | None] = CodexCLIConfig
    dialect: ClassVar[str] = "openai-responses"
    binary: ClassVar[str] = "codex"
    package: ClassVar[str] = "@openai/codex"

    def invocation(self, prompt: str, at: Inside) -> Invocation:
        """Return how to start it: a home of its own whose provider is the proxy, events as JSON lines."""
        config = self.config
        settings = [
            f"model = {json.dumps(config.model)}",
            'model_provider = "hud"',
            *(
                [f"model_reasoning_effort = {json.dumps(config.reasoning_effort)}"]
                if config.reasoning_effort
                else []
            ),
            "[model_providers.hud]",
            'name = "hud"',
            f'base_url = "{at.url}/v1"',
            'env_key = "HUD_MODEL_TOKEN"',
            'wire_api = "responses"',
        ]
        if at.tools is not None:
            settings += [
                f"[mcp_servers.{NAME}]",
                f"url = {json.dumps(at.tools)}",
                'bearer_token_env_var = "HUD_TOOLS_TOKEN"',
            ]
        words = ["exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        words += [word for path in at.images for word in ("--image", path)] + ["-"]
        text = f"{config.system_prompt}\n\n{prompt}" if config.system_prompt else prompt
        env = {"CODEX_HOME": at.home, "HUD_MODEL_TOKEN": at.token, "HUD_TOOLS_TOKEN": at.tools_token}
        return Invocation(words, env, text, {f"{at.home}/config.toml": "\n".join(settings) + "\n"})

    def reader(self, run: Run) -> Reader:
        """Return what reads its `--json` events."""
        return CodexReader(run, self.config.model)


class CodexReader(Reader):
    """Reads Codex's events. Tokens come once, for all turns, with the last one."""

    def read(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        kind = event.get("type")
        if kind == "item.completed":
            self._item(event.get("item") or {})
        elif kind == "turn.completed":
            self._usage(event.get("usage") or {})
        elif kind == "turn.failed":
            self.failure = str((event.get("error") or {}).get("message") or "the turn failed")
        elif kind == "error":
            self.failure = str(event.get("message") or "it failed")

    def _item(self, item: Mapping[str, Any]) -> None:
        kind = item.get("type")
        if kind == "agent_message":
            self.failure = None  # it has recovered from what it reported before
            self.answer = str(item.get("text") or "")
            self.run.record(AgentStep(content=self.answer, model=self.model))
        elif kind == "reasoning":
            self.run.record(AgentStep(reasoning=str(item.get("text") or ""), model=self.model))
        elif kind == "command_execution":
            call = MCPToolCall("shell", {"command": item.get("command")}, str(item.get("id", "")))
            failed = bool(item.get("exit_code"))
            result = MCPToolResult.of_text(
                str(item.get("aggregated_output") or ""), error=failed, call_id=call.id
            )
            self.run.record(ToolStep(call=call, result=result))
        elif kind == "mcp_tool_call":
            self._tool(item)
        elif kind == "file_change":
            call = MCPToolCall("apply_patch", {"changes": item.get("changes")}, str(item.get("id", "")))
            failed = item.get("status") == "failed"
            result = MCPToolResult.of_text(str(item.get("status") or ""), error=failed, call_id=call.id)
            self.run.record(ToolStep(call=call, result=result))

    def _tool(self, item: Mapping[str, Any]) -> None:
        call = MCPToolCall(str(item.get("tool")), item.get("arguments") or {}, str(item.get("id", "")))
        error = (item.get("error") or {}).get("message")
        content = (item.get("result") or {}).get("content") or []
        result = MCPToolResult.of_text(str(error or ""), error=True, call_id=call.id)
        if error is None:
            result = MCPToolResult(list(content), item.get("status") == "failed", call_id=call.id)
        self.run.record(ToolStep(call=call, result=result))

    def _usage(self, usage: Mapping[str, Any]) -> None:
        counted = usage_of(
            self.model,
            prompt=int(usage.get("input_tokens") or 0),
            output=int(usage.get("output_tokens") or 0),
            cached=int(usage.get("cached_input_tokens") or 0),
        )
        self.run.record(AgentStep(source="system", model=self.model, usage=counted, done=True))
