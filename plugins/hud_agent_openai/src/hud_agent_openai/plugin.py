"""What this distribution adds to hud."""

from hud.plugins import AgentKind, hookimpl


@hookimpl
def hud_agents() -> list[AgentKind]:
    """Declare the agents of OpenAI's models and of those behind compatible servers."""
    return [
        AgentKind(
            name="openai",
            target="hud_agent_openai.responses:OpenAIAgent",
            config="hud_agent_openai.responses:OpenAIConfig",
            summary="GPT by OpenAI's Responses API",
            models=("gpt-*", "o[0-9]*", "chatgpt-*", "codex-*", "computer-use-*", "openai/*"),
            credentials=("OPENAI_API_KEY",),
            dialects=("openai-responses",),
            exports={
                "hud.agents": {
                    "OpenAIAgent": "hud_agent_openai.responses:OpenAIAgent",
                    "OpenAIConfig": "hud_agent_openai.responses:OpenAIConfig",
                }
            },
        ),
        AgentKind(
            name="openai_compatible",
            target="hud_agent_openai.chat:OpenAIChatAgent",
            config="hud_agent_openai.chat:OpenAIChatConfig",
            summary="Any model behind a server that speaks Chat Completions",
            models=("gpt-oss*",),
            credentials=("OPENAI_API_KEY",),
            dialects=("openai-chat",),
            exports={
                "hud.agents": {
                    "OpenAIChatAgent": "hud_agent_openai.chat:OpenAIChatAgent",
                    "OpenAIChatConfig": "hud_agent_openai.chat:OpenAIChatConfig",
                }
            },
        ),
    ]
