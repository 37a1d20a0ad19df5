"""What this distribution adds to hud."""

from hud.plugins import AgentKind, hookimpl


@hookimpl
def hud_agents() -> list[AgentKind]:
    """Declare the programs."""
    return [
        AgentKind(
            name="claude_cli",
            target="hud_agent_cli.claude:ClaudeCLIAgent",
            config="hud_agent_cli.claude:ClaudeCLIConfig",
            summary="Claude Code, run inside the workspace",
            credentials=("ANTHROPIC_API_KEY",),
            dialects=("anthropic",),
            exports={
                "hud.agents": {
                    "ClaudeCLIAgent": "hud_agent_cli.claude:ClaudeCLIAgent",
                    "ClaudeCLIConfig": "hud_agent_cli.claude:ClaudeCLIConfig",
                }
            },
        ),
        AgentKind(
            name="codex_cli",
            target="hud_agent_cli.codex:CodexCLIAgent",
            config="hud_agent_cli.codex:CodexCLIConfig",
            summary="Codex, run inside the workspace",
            credentials=("OPENAI_API_KEY",),
            dialects=("openai-responses",),
            exports={
                "hud.agents": {
                    "CodexCLIAgent": "hud_agent_cli.codex:CodexCLIAgent",
                    "CodexCLIConfig": "hud_agent_cli.codex:CodexCLIConfig",
                }
            },
        ),
        AgentKind(
            name="gemini_cli",
            target="hud_agent_cli.gemini:GeminiCLIAgent",
            config="hud_agent_cli.gemini:GeminiCLIConfig",
            summary="Gemini CLI, run inside the workspace",
            credentials=("GEMINI_API_KEY",),
            dialects=("gemini",),
        ),
        AgentKind(
            name="opencode_cli",
            target="hud_agent_cli.opencode:OpenCodeCLIAgent",
            config="hud_agent_cli.opencode:OpenCodeCLIConfig",
            summary="OpenCode, run inside the workspace",
            credentials=("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"),
            dialects=("anthropic", "openai-chat", "gemini"),
        ),
        AgentKind(
            name="mini_swe",
            target="hud_agent_cli.mini:MiniSWEAgent",
            config="hud_agent_cli.mini:MiniSWEConfig",
            summary="mini-swe-agent, run inside the workspace",
            credentials=("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"),
            dialects=("anthropic", "openai-chat", "gemini"),
        ),
    ]
