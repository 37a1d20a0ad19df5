"""A conversation: the prompt is a list of messages, and the last turn is the agent's."""

from typing import Any

from hud.environment import Environment
from hud.graders import contains, contains_any
from hud.types import EvaluationResult, SubScore

env = Environment(name="{{name}}")

Message = dict[str, Any]


@env.template(description="Continue a support conversation; the reply has to name the order and apologise.")
async def support(messages: list[Message], order: str):
    answer = yield messages
    text = str(answer)
    parts = [
        SubScore("names the order", contains(text, order), weight=0.5),
        SubScore("apologises", contains_any(text, ["sorry", "apologise", "apologize"]), weight=0.5),
    ]
    yield EvaluationResult(reward=sum(part.value * part.weight for part in parts), subscores=parts)


@support.solution
async def _(run, messages: list[Message], order: str):
    return f"I am sorry that order {order} is late. It will arrive tomorrow."
