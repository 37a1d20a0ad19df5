"""Where a model stops: whether a person would tell it to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hud.agents.conversation import Conversation, UserEntry
from hud.errors import HudError
from hud.types.trace import AgentStep, Step

if TYPE_CHECKING:
    from hud.agents.loop import ToolAgent
    from hud.eval.run import Run

INSTRUCTIONS = (
    "You decide for a user whether an agent should go on with a task or stop. Answer with one word. STOP: it has "
    "finished, has given its final answer, or cannot go on. CONTINUE: it asks for permission or for a choice it can "
    "make itself, or announces what it would do next."
)
SHOWN_CHARS = 4000


async def wants_more(agent: ToolAgent[Any], run: Run, conversation: Conversation) -> bool:
    """Ask the configured model; a failure to ask means stop, and is recorded."""
    asked = agent if agent.responder is None else agent.responder
    said = run.trace.content if isinstance(run.trace.content, str) else ""
    task = next((_text(entry) for entry in conversation.entries if isinstance(entry, UserEntry)), "")
    question = (
        f"The task:\n{task[:SHOWN_CHARS]}\n\nThe agent says:\n{said[-SHOWN_CHARS:]}\n\nSTOP or CONTINUE?"
    )
    try:
        from hud.agents.loop import reserve

        with await reserve(run, asked, len(question + INSTRUCTIONS) // 4) as held:
            step = await asked.ask(question, system=INSTRUCTIONS)
            held.settle(step.usage)
    except HudError as error:
        run.record(Step(source="system", error=f"auto_respond: {error}"))
        return False
    run.record(
        AgentStep(
            source="system",
            content=step.content,
            model=step.model,
            usage=step.usage,
            extra={"purpose": "auto_respond"},
        )
    )
    return "CONTINUE" in (step.content or "").upper() and "STOP" not in (step.content or "").upper()


def other_responder(agent: ToolAgent[Any]) -> ToolAgent[Any] | None:
    """Return the agent of the model that `auto_respond` names; None where it is the agent's own.

    Raises:
        HudError: no such model, or nothing can serve it.
    """
    config = agent.config
    if isinstance(config.auto_respond, bool):
        return None
    from hud.agents.create import create_agent

    # A server of one's own, and a gateway, serve this model too; a provider's own key is found by its name.
    options: dict[str, Any] = {"gateway": True} if config.gateway else {}
    if config.base_url is not None:
        options = {"base_url": config.base_url, "api_key": config.api_key}
    made: ToolAgent[Any] = create_agent(config.auto_respond, **options)
    return made


def _text(entry: UserEntry) -> str:
    return "\n".join(str(block.get("text", "")) for block in entry.blocks)
