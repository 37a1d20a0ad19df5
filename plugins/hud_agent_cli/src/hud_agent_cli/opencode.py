"""`OpenCodeCLIAgent`: OpenCode inside the workspace, with a model of any provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from hud.agents.prices import usage_of
from hud.types import AgentStep, MCPToolCall, MCPToolResult, ToolStep
from hud_agent_cli.program import CLIAgent, CLIConfig, Inside, Invocation, Reader
from hud_agent_cli.relay import NAME
from hud_agent_cli.served import dialect_of

if TYPE_CHECKING:
    from hud.eval.run import Run

PROVIDERS = {
    "anthropic": ("@ai-sdk/anthropic", "/v1"),
    "gemini": ("@ai-sdk/google", "/v1beta"),
    "openai-chat": ("@ai-sdk/openai-compatible", "/v1"),
}
"""The client that OpenCode carries for each dialect, and what it expects at the end of an address."""

SEES = {"modalities": {"input": ["text", "image"], "output": ["text"]}}


class OpenCodeCLIConfig(CLIConfig):
    """What OpenCode can be told; see the README."""

    model_name: str = "OpenCode"
    model: str = Field(
        default="claude-sonnet-5", validation_alias=CLIConfig.model_fields["model"].validation_alias
    )


class OpenCodeCLIAgent(CLIAgent[OpenCodeCLIConfig]):
    """OpenCode."""

    config_cls: ClassVar[type[Any] | None] = OpenCodeCLIConfig
    binary: ClassVar[str] = "opencode"
    package: ClassVar[str] = "opencode-ai"

    def speaks(self) -> str:
        """Return the dialect of the model's inventor."""
        return dialect_of(self.config.model, self.config.base_url)

    def invocation(self, prompt: str, at: Inside) -> Invocation:
        """Return how to start it: a home of its own whose one provider is the proxy, events as JSON lines."""
        config = self.config
        package, ending = PROVIDERS[self.route.dialect.name]
        model = f"hud/{config.model}"
        settings: dict[str, Any] = {
            "model": model,
            "small_model": model,  # its side questions go to the same model: no other may be paid for
            "autoupdate": False,
            "share": "disabled",
            "permission": "allow",
            "enabled_providers": ["hud"],
            "provider": {
                "hud": {
                    "npm": package,
                    "name": "hud",
                    "options": {"baseURL": f"{at.url}{ending}", "apiKey": at.token},
                    "models": {config.model: {"name": config.model, "attachment": True, **SEES}},
                }
            },
        }
        if at.tools is not None:
            server = {"type": "remote", "url": at.tools, "headers": at.tools_headers, "oauth": False}
            settings["mcp"] = {NAME: server}
        if config.max_steps > 0:
            settings["agent"] = {"build": {"steps": config.max_steps}}
        env = {
            "OPENCODE_CONFIG": f"{at.home}/opencode.json",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            **{
                f"XDG_{name}_HOME": f"{at.home}/{name.lower()}"
                for name in ("CACHE", "CONFIG", "DATA", "STATE")
            },
        }
        words = ["run", "--format", "json", "--thinking", "--model", model]
        words += [word for path in at.images for word in ("--file", path)]
        if config.reasoning_effort is not None:
            words += ["--variant", config.reasoning_effort]
        text = f"{config.system_prompt}\n\n{prompt}" if config.system_prompt else prompt
        return Invocation(words, env, text, {f"{at.home}/opencode.json": json.dumps(settings)})

    def reader(self, run: Run) -> Reader:
        """Return what reads its JSON events."""
        return OpenCodeReader(run, self.config.model)


class OpenCodeReader(Reader):
    """Reads OpenCode's events: a step begins, has parts (text, thought, calls with their results), and ends."""

    def __init__(self, run: Run, model: str) -> None:
        super().__init__(run, model)
        self._step: AgentStep | None = None
        self._tools: list[ToolStep] = []

    def read(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        kind, part = event.get("type"), event.get("part") or {}
        if kind == "step_start":
            self.end()
            self._step = AgentStep(model=self.model)
        elif kind == "text":
            self.failure = None  # it has recovered from what it reported before
            self.answer = str(part.get("text") or "")
            step = self._open()
            step.content = (step.content or "") + self.answer
        elif kind == "reasoning":
            step = self._open()
            step.reasoning = (step.reasoning or "") + str(part.get("text") or "")
        elif kind == "tool_use":
            self._tool(part)
        elif kind == "step_finish":
            self._usage(part.get("tokens") or {})
            self.end()
        elif kind == "error":
            error = event.get("error") or {}
            data = error.get("data") or {}
            self.failure = str(data.get("message") or error.get("name") or "it failed")

    def end(self) -> None:
        """Record the open step, then what its tools gave."""
        if self._step is not None:
            step, self._step = self._step, None
            if step.content or step.reasoning or step.tool_calls or step.usage is not None:
                self.run.record(step)
        tools, self._tools = self._tools, []
        for tool in tools:
            self.run.record(tool)

    def _open(self) -> AgentStep:
        if self._step is None:
            self._step = AgentStep(model=self.model)
        return self._step

    def _tool(self, part: Mapping[str, Any]) -> None:
        state = part.get("state") or {}
        call = MCPToolCall(str(part.get("tool")), state.get("input") or {}, str(part.get("callID")))
        failed = state.get("status") == "error"
        text = str(state.get("error") if failed else state.get("output") or "")
        self._open().tool_calls.append(call)
        self._tools.append(
            ToolStep(call=call, result=MCPToolResult.of_text(text, error=failed, call_id=call.id))
        )

    def _usage(self, tokens: Mapping[str, Any]) -> None:
        cache = tokens.get("cache") or {}
        cached, written = int(cache.get("read") or 0), int(cache.get("write") or 0)
        self._open().usage = usage_of(
            self.model,
            prompt=int(tokens.get("input") or 0) + cached + written,
            output=int(tokens.get("output") or 0) + int(tokens.get("reasoning") or 0),
            cached=cached,
            written=written,
        )
