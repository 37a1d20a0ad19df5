"""What this distribution adds to hud."""

from hud.plugins import AgentKind, hookimpl


@hookimpl
def hud_agents() -> list[AgentKind]:
    """Declare the agent of Claude's models."""
    return [
        AgentKind(
            name="claude",
            target="hud_agent_claude.agent:ClaudeAgent",
            config="hud_agent_claude.agent:ClaudeConfig",
            summary="Claude by Anthropic's Messages API, Bedrock or Vertex",
            models=(
                "claude-*",
                "anthropic/*",
                "arn:aws:bedrock:*",
                "*.anthropic.claude-*",
                "anthropic.claude-*",
            ),
            credentials=("ANTHROPIC_API_KEY",),
            dialects=("anthropic",),
            exports={
                "hud.agents": {
                    "ClaudeAgent": "hud_agent_claude.agent:ClaudeAgent",
                    "ClaudeConfig": "hud_agent_claude.agent:ClaudeConfig",
                }
            },
        )
    ]
