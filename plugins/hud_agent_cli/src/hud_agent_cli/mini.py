"""`MiniSWEAgent`: mini-swe-agent inside the workspace, with a model of any provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from hud.agents.prices import usage_of
from hud.types import AgentStep, MCPToolCall, MCPToolResult, ToolStep
from hud_agent_cli.images import looked_at
from hud_agent_cli.program import PREFIX, CLIAgent, CLIConfig, Inside, Invocation, Reader
from hud_agent_cli.served import dialect_of

if TYPE_CHECKING:
    from hud.eval.run import Run

PROVIDERS = {
    "anthropic": ("anthropic", ""),
    "gemini": ("gemini", "/v1beta"),
    "openai-chat": ("openai", "/v1"),
}
"""LiteLLM's name for the provider of each dialect, and what it expects at the end of an address."""


class MiniSWEConfig(CLIConfig):
    """What mini-swe-agent can be told; see the README."""

    model_name: str = "mini-swe-agent"
    model: str = Field(
        default="claude-sonnet-5", validation_alias=CLIConfig.model_fields["model"].validation_alias
    )


class MiniSWEAgent(CLIAgent[MiniSWEConfig]):
    """mini-swe-agent. It writes its trajectory into a file, which is read when it has ended."""

    config_cls: ClassVar[type[Any] | None] = MiniSWEConfig
    binary: ClassVar[str] = "mini"
    package: ClassVar[str] = "mini-swe-agent"
    installed: ClassVar[str] = f"{PREFIX}/mini/bin/mini"
    # LiteLLM asks for mcp where a model calls tools.
    installer: ClassVar[str] = (
        f"python3 -m venv {PREFIX}/mini && {PREFIX}/mini/bin/pip install -q mini-swe-agent mcp"
    )

    def speaks(self) -> str:
        """Return the dialect of the model's inventor."""
        return dialect_of(self.config.model, self.config.base_url)

    def invocation(self, prompt: str, at: Inside) -> Invocation:
        """Return how to start it: all it is told lies in a file, the key in a variable."""
        config = self.config
        provider, ending = PROVIDERS[self.route.dialect.name]
        own: dict[str, Any] = {
            "run": {"task": looked_at(prompt, at.images)},
            "agent": {"output_path": f"{at.home}/trajectory.json", "cost_limit": 0.0},
            "model": {
                "model_name": f"{provider}/{config.model}",
                "model_kwargs": {"api_base": f"{at.url}{ending}"},
                "cost_tracking": "ignore_errors",
            },
        }
        if config.max_steps > 0:
            own["agent"]["step_limit"] = config.max_steps
        if config.system_prompt:
            own["agent"]["system_template"] = config.system_prompt
        if config.reasoning_effort is not None:
            own["model"]["model_kwargs"]["reasoning_effort"] = config.reasoning_effort
        words = ["--yolo", "--exit-immediately", "--output", f"{at.home}/trajectory.json"]
        words += ["--config", "mini.yaml", "--config", f"{at.home}/own.yaml"]
        env = {
            f"{provider.upper()}_API_KEY": at.token,
            "MSWEA_CONFIGURED": "true",
            "MSWEA_GLOBAL_CONFIG_DIR": at.home,
            "MSWEA_SILENT_STARTUP": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        return Invocation(
            words, env, "", {f"{at.home}/own.yaml": json.dumps(own)}, f"{at.home}/trajectory.json"
        )

    def reader(self, run: Run) -> Reader:
        """Return what reads its trajectory."""
        return MiniReader(run, self.config.model)


class MiniReader(Reader):
    """Reads mini-swe-agent's trajectory: the messages of the conversation, with what the provider said of each."""

    def read(self, event: Mapping[str, Any]) -> None:
        """Take in the trajectory."""
        calls: dict[str, MCPToolCall] = {}
        for message in event.get("messages") or ():
            if message.get("role") == "assistant":
                step = self._turn(message)
                calls |= {call.id: call for call in step.tool_calls}
                self.run.record(step)
            elif message.get("role") == "tool":
                self._result(message, calls)
        self._end(event.get("info") or {})

    def _turn(self, message: Mapping[str, Any]) -> AgentStep:
        step = AgentStep(content=message.get("content"), model=self.model)
        step.reasoning = message.get("reasoning_content")
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            step.tool_calls.append(
                MCPToolCall(
                    str(function.get("name")), _arguments(function.get("arguments")), str(call.get("id"))
                )
            )
        usage = ((message.get("extra") or {}).get("response") or {}).get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        step.usage = usage_of(
            self.model,
            prompt=int(usage.get("prompt_tokens") or 0),
            output=int(usage.get("completion_tokens") or 0),
            cached=int(details.get("cached_tokens") or 0),
        )
        return step

    def _result(self, message: Mapping[str, Any], calls: Mapping[str, MCPToolCall]) -> None:
        extra = message.get("extra") or {}
        call = calls.get(str(message.get("tool_call_id"))) or MCPToolCall("unknown")
        text = str(extra.get("raw_output") or "") or str(extra.get("exception_info") or "")
        result = MCPToolResult.of_text(text, error=bool(extra.get("returncode")), call_id=call.id)
        self.run.record(ToolStep(call=call, result=result))

    def _end(self, info: Mapping[str, Any]) -> None:
        status = str(info.get("exit_status") or "")
        if status == "Submitted":
            self.answer = str(info.get("submission") or "").strip()
        elif status == "LimitsExceeded":
            self.stop, self.answer = "max_steps", ""
        elif status:
            self.failure = f"ended with {status}"


def _arguments(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": text}
