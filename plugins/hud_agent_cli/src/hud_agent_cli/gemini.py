"""`GeminiCLIAgent`: Gemini CLI inside the workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from hud.agents.prices import usage_of
from hud.types import AgentStep, MCPToolCall, MCPToolResult, ToolStep
from hud_agent_cli.images import looked_at
from hud_agent_cli.program import CLIAgent, CLIConfig, Inside, Invocation, Reader
from hud_agent_cli.relay import NAME

if TYPE_CHECKING:
    from hud.eval.run import Run


class GeminiCLIConfig(CLIConfig):
    """What Gemini CLI can be told; see the README."""

    model_name: str = "Gemini CLI"
    model: str = Field(
        default="gemini-3.1-pro-preview", validation_alias=CLIConfig.model_fields["model"].validation_alias
    )


class GeminiCLIAgent(CLIAgent[GeminiCLIConfig]):
    """Gemini CLI."""

    config_cls: ClassVar[type[Any] | None] = GeminiCLIConfig
    dialect: ClassVar[str] = "gemini"
    binary: ClassVar[str] = "gemini"
    package: ClassVar[str] = "@google/gemini-cli"

    def invocation(self, prompt: str, at: Inside) -> Invocation:
        """Return how to start it: a home of its own, the prompt on standard input, events as JSON lines."""
        config = self.config
        settings: dict[str, Any] = {
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "general": {"disableAutoUpdate": True},
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
        }
        if at.tools is not None:
            server = {"httpUrl": at.tools, "headers": at.tools_headers, "trust": True}
            settings["mcpServers"] = {NAME: server}
        if config.max_steps > 0:
            settings["model"] = {"maxSessionTurns": config.max_steps}
        words = ["--model", config.model, "--approval-mode", "yolo", "--skip-trust"]
        words += ["--output-format", "stream-json", "--prompt", ""]
        if at.images:
            words += ["--include-directories", at.home]
        env = {"GEMINI_CLI_HOME": at.home, "GEMINI_API_KEY": at.token, "GOOGLE_GEMINI_BASE_URL": at.url}
        text = f"{config.system_prompt}\n\n{prompt}" if config.system_prompt else prompt
        files = {f"{at.home}/.gemini/settings.json": json.dumps(settings)}
        return Invocation(words, env, looked_at(text, at.images, "@"), files)

    def reader(self, run: Run) -> Reader:
        """Return what reads its `stream-json` events."""
        return GeminiReader(run, self.config.model)


class GeminiReader(Reader):
    """Reads Gemini CLI's events: text in pieces, then calls, then their results. Tokens come once, at the end."""

    def __init__(self, run: Run, model: str) -> None:
        super().__init__(run, model)
        self._step: AgentStep | None = None
        self._calls: dict[str, MCPToolCall] = {}

    def read(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        kind = event.get("type")
        if kind == "message" and event.get("role") == "assistant":
            step = self._open()
            step.content = (step.content or "") + str(event.get("content") or "")
        elif kind == "tool_use":
            call = MCPToolCall(
                str(event.get("tool_name")), event.get("parameters") or {}, str(event.get("tool_id"))
            )
            self._calls[call.id] = call
            self._open().tool_calls.append(call)
        elif kind == "tool_result":
            self.end()
            self._result(event)
        elif kind == "error":
            self.failure = str(event.get("message") or "it failed")
        elif kind == "result":
            self._last(event)

    def end(self) -> None:
        """Record the open turn."""
        if self._step is not None:
            step, self._step = self._step, None
            self.run.record(step)

    def _open(self) -> AgentStep:
        if self._step is None:
            self._step = AgentStep(model=self.model)
        return self._step

    def _result(self, event: Mapping[str, Any]) -> None:
        call = self._calls.get(str(event.get("tool_id"))) or MCPToolCall("unknown")
        failed = event.get("status") == "error"
        text = str(event.get("output") or "")
        if failed and not text:
            text = str((event.get("error") or {}).get("message") or "")
        self.run.record(
            ToolStep(call=call, result=MCPToolResult.of_text(text, error=failed, call_id=call.id))
        )

    def _last(self, event: Mapping[str, Any]) -> None:
        if self._step is not None and not self._step.tool_calls:
            self.answer = (self._step.content or "").strip()
        self.end()
        if event.get("status") == "success":
            self.failure = None
            self.answer = self.answer or ""
        else:
            error = event.get("error") or {}
            if "turn" in str(error.get("type") or "").lower():
                self.stop, self.answer, self.failure = "max_steps", self.answer or "", None
            else:
                self.failure = str(error.get("message") or self.failure or "it failed")
        stats = event.get("stats") or {}
        counted = usage_of(
            self.model,
            prompt=int(stats.get("input_tokens") or 0),
            output=int(stats.get("output_tokens") or 0),
            cached=int(stats.get("cached") or 0),
        )
        if counted.total_tokens:
            self.run.record(AgentStep(source="system", model=self.model, usage=counted, done=True))
