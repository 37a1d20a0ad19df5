"""`ClaudeCLIAgent`: Claude Code inside the workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from hud.agents.prices import usage_of
from hud.types import AgentStep, MCPToolCall, MCPToolResult, ToolStep
from hud_agent_cli.images import looked_at
from hud_agent_cli.program import CLIAgent, CLIConfig, Inside, Invocation, Reader
from hud_agent_cli.relay import NAME

if TYPE_CHECKING:
    from hud.eval.run import Run

TOOLS = ("Read", "Write", "Edit", "Bash", "Glob", "Grep", "WebSearch", "WebFetch")


class ClaudeCLIConfig(CLIConfig):
    """What Claude Code can be told; see the README."""

    model_name: str = "Claude Code"
    model: str = Field(
        default="claude-sonnet-5", validation_alias=CLIConfig.model_fields["model"].validation_alias
    )
    permission_mode: Literal["default", "acceptEdits", "bypassPermissions", "plan"] = "bypassPermissions"
    allowed_tools: list[str] = Field(default_factory=lambda: list(TOOLS))
    reasoning_effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class ClaudeCLIAgent(CLIAgent[ClaudeCLIConfig]):
    """Claude Code."""

    config_cls: ClassVar[type[Any] | None] = ClaudeCLIConfig
    dialect: ClassVar[str] = "anthropic"
    binary: ClassVar[str] = "claude"
    package: ClassVar[str] = "@anthropic-ai/claude-code"

    def invocation(self, prompt: str, at: Inside) -> Invocation:
        """Return how to start it: the prompt on standard input, events as JSON lines."""
        config = self.config
        words = ["-p", "--output-format", "stream-json", "--verbose", "--model", config.model]
        words += ["--permission-mode", config.permission_mode]
        if config.allowed_tools:
            ours = [f"mcp__{NAME}"] if at.tools is not None else []
            words += ["--allowedTools", ",".join([*config.allowed_tools, *ours])]
        if config.system_prompt:
            words += ["--append-system-prompt", config.system_prompt]
        if config.max_steps > 0:
            words += ["--max-turns", str(config.max_steps)]
        if config.reasoning_effort is not None:
            words += ["--effort", config.reasoning_effort]
        files = {}
        if at.tools is not None:
            server = {"type": "http", "url": at.tools, "headers": at.tools_headers}
            files[f"{at.home}/tools.json"] = json.dumps({"mcpServers": {NAME: server}})
            words += ["--strict-mcp-config", "--mcp-config", f"{at.home}/tools.json"]
        env = {
            "ANTHROPIC_BASE_URL": at.url,
            "ANTHROPIC_API_KEY": at.token,
            "CLAUDE_CONFIG_DIR": at.home,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",
            # Its side questions go to the same model: no other may be paid for.
            "ANTHROPIC_SMALL_FAST_MODEL": config.model,
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": config.model,
        }
        return Invocation(words, env, looked_at(prompt, at.images), files)

    def reader(self, run: Run) -> Reader:
        """Return what reads its `stream-json` events."""
        return ClaudeReader(run, self.config.model)


class ClaudeReader(Reader):
    """Reads Claude Code's events; a message comes in pieces, one block each."""

    def __init__(self, run: Run, model: str) -> None:
        super().__init__(run, model)
        self._step: AgentStep | None = None
        self._message = ""
        self._calls: dict[str, MCPToolCall] = {}

    def read(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        kind = event.get("type")
        if kind == "assistant":
            if event["message"].get("model") != "<synthetic>":  # its own words on a failure, no model's
                self._assistant(event["message"])
        elif kind == "user":
            self.end()
            self._results(event["message"].get("content"))
        elif kind == "result":
            self.end()
            self._result(event)

    def end(self) -> None:
        """Record the open message."""
        if self._step is not None:
            step, self._step = self._step, None
            self.run.record(step)

    def _assistant(self, message: Mapping[str, Any]) -> None:
        if message.get("id") != self._message or self._step is None:
            self.end()
            self._message = str(message.get("id"))
            self._step = AgentStep(model=message.get("model"))
        step = self._step
        for block in message.get("content") or ():
            if block["type"] == "text":
                step.content = (step.content or "") + block["text"]
            elif block["type"] == "thinking":
                step.reasoning = (step.reasoning or "") + block.get("thinking", "")
            elif block["type"] == "tool_use":
                call = MCPToolCall(block["name"], block.get("input") or {}, block["id"])
                self._calls[call.id] = call
                step.tool_calls.append(call)
        usage = message.get("usage") or {}
        cached = int(usage.get("cache_read_input_tokens") or 0)
        written = int(usage.get("cache_creation_input_tokens") or 0)
        step.usage = usage_of(
            self.model,
            prompt=int(usage.get("input_tokens") or 0) + cached + written,
            output=int(usage.get("output_tokens") or 0),
            cached=cached,
            written=written,
        )

    def _results(self, content: Any) -> None:
        for block in content if isinstance(content, list) else ():
            if block.get("type") != "tool_result":
                continue
            call = self._calls.get(str(block.get("tool_use_id"))) or MCPToolCall("unknown")
            given = block.get("content") or ""
            blocks = (
                [{"type": "text", "text": given}] if isinstance(given, str) else [_block(b) for b in given]
            )
            result = MCPToolResult(blocks, bool(block.get("is_error")), call_id=call.id)
            self.run.record(ToolStep(call=call, result=result))

    def _result(self, event: Mapping[str, Any]) -> None:
        if event.get("subtype") == "error_max_turns":
            self.stop = "max_steps"
        elif event.get("is_error"):
            self.failure = str(event.get("result") or event.get("subtype") or "failed")
            return
        self.answer = str(event.get("result") or "")


def _block(block: Mapping[str, Any]) -> dict[str, Any]:
    if block.get("type") == "text":
        return {"type": "text", "text": str(block.get("text", ""))}
    source = block.get("source") or {}
    if block.get("type") == "image" and source.get("type") == "base64":
        return {"type": "image", "data": source["data"], "mimeType": source.get("media_type", "image/png")}
    return {"type": "text", "text": json.dumps(dict(block), default=str)}
