"""Names of our own distributions: which one provides what, so that an absent one can be named.

A name loads its distribution's entry points alone. A test compares these tables with what the installed
distributions declare. Third parties are imported by their own names and need no table.
"""

from __future__ import annotations

_SSH = "hud-capability-ssh"
_GUI = "hud-capability-gui"
_MCP = "hud-capability-mcp"
_LLM = "hud-grader-llm"
_HUD = "hud-runtime-hud"

_RUNTIMES = {
    "DockerRuntime": "hud-runtime-docker",
    "ModalRuntime": "hud-runtime-modal",
    "DaytonaRuntime": "hud-runtime-daytona",
    "E2BRuntime": "hud-runtime-e2b",
    "HUDRuntime": _HUD,
    "HostedRuntime": _HUD,
}

FIRST_PARTY: dict[str, dict[str, str]] = {
    "hud": {name: _RUNTIMES[name] for name in ("DockerRuntime", "HUDRuntime", "HostedRuntime")},
    "hud.eval": _RUNTIMES | {"DockerBindMount": "hud-runtime-docker"},
    "hud.environment": {
        "Workspace": _SSH,
        "Mount": _SSH,
        "MountKind": _SSH,
        "Peer": _SSH,
        "DEFAULT_SYSTEM_MOUNTS": _SSH,
        "Desktop": _GUI,
        "Browser": _GUI,
        "ToolServer": _MCP,
    },
    "hud.capabilities": {
        "SSHClient": _SSH,
        "SSHConnectionError": _SSH,
        "RFBClient": _GUI,
        "CDPClient": _GUI,
        "MCPClient": _MCP,
    },
    "hud.graders": {"LLMJudgeGrader": _LLM},
    "hud.agents": {
        "ClaudeAgent": "hud-agent-claude",
        "ClaudeConfig": "hud-agent-claude",
        "OpenAIAgent": "hud-agent-openai",
        "OpenAIConfig": "hud-agent-openai",
        "OpenAIChatAgent": "hud-agent-openai",
        "OpenAIChatConfig": "hud-agent-openai",
        "GeminiAgent": "hud-agent-gemini",
        "GeminiConfig": "hud-agent-gemini",
        "ClaudeCLIAgent": "hud-agent-cli",
        "ClaudeCLIConfig": "hud-agent-cli",
        "CodexCLIAgent": "hud-agent-cli",
        "CodexCLIConfig": "hud-agent-cli",
    },
}
"""Module -> public name -> distribution."""

DECLARED: dict[str, dict[str, str]] = {
    "runtime": {
        "docker": "hud-runtime-docker",
        "modal": "hud-runtime-modal",
        "daytona": "hud-runtime-daytona",
        "e2b": "hud-runtime-e2b",
        "hud": _HUD,
    },
    "capability": {"ssh": _SSH, "rfb": _GUI, "cdp": _GUI, "mcp": _MCP},
    "method": {"workspace": _SSH, "desktop": _GUI, "browser": _GUI, "tools": _MCP},
    "grader": {"llm-judge": _LLM},
    "command": {"build": "hud-runtime-docker", "export": "hud-export", "judge": _LLM},
    "agent": {
        "claude": "hud-agent-claude",
        "openai": "hud-agent-openai",
        "openai_compatible": "hud-agent-openai",
        "gemini": "hud-agent-gemini",
        "claude_cli": "hud-agent-cli",
        "codex_cli": "hud-agent-cli",
        "gemini_cli": "hud-agent-cli",
        "opencode_cli": "hud-agent-cli",
        "mini_swe": "hud-agent-cli",
    },
}
"""Kind -> name, as it is looked up in the registry -> distribution. Capabilities are named by family."""

MODELS: tuple[tuple[str, str], ...] = (
    ("claude-*", "hud-agent-claude"),
    ("gpt-*", "hud-agent-openai"),
    ("o[0-9]*", "hud-agent-openai"),
    ("gemini-*", "hud-agent-gemini"),
)
"""Model-name patterns of our own agents, to name the distribution while it is absent."""

DISTRIBUTIONS: frozenset[str] = frozenset(
    {dist for names in FIRST_PARTY.values() for dist in names.values()}
    | {dist for names in DECLARED.values() for dist in names.values()}
)

NOT_YET: frozenset[str] = frozenset(
    {"hud-capability-gui", "hud-runtime-daytona", "hud-runtime-e2b", "hud-runtime-hud", "hud-runtime-modal"}
)
"""Those without a release: their names are kept for them, and nobody is told to install what anyone might upload."""


def how_to_install(dist: str) -> str:
    """Say how to get a distribution of ours: `pip install ...`, or that it is still to come."""
    return f"{dist}, which has no release yet" if dist in NOT_YET else f"{dist}: pip install {dist}"
