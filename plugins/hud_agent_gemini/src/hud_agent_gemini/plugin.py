"""What this distribution adds to hud."""

from hud.plugins import AgentKind, hookimpl


@hookimpl
def hud_agents() -> list[AgentKind]:
    """Declare the agent of Gemini's models."""
    return [
        AgentKind(
            name="gemini",
            target="hud_agent_gemini.agent:GeminiAgent",
            config="hud_agent_gemini.agent:GeminiConfig",
            summary="Gemini by the Gemini API or Vertex AI",
            models=("gemini-*", "gemma-*", "google/*"),
            credentials=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            dialects=("gemini",),
            exports={
                "hud.agents": {
                    "GeminiAgent": "hud_agent_gemini.agent:GeminiAgent",
                    "GeminiConfig": "hud_agent_gemini.agent:GeminiConfig",
                }
            },
        )
    ]
