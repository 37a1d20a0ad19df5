"""A conversation: the prompt is a list of messages, the answer is the next turn, scored in parts."""

from typing import Any

from hud.environment import Environment
from hud.graders import combine, contains, contains_any
from hud.types import SubScore

env = Environment(name="support")

APOLOGIES = ["sorry", "apologise", "apologize"]


@env.template(description="Answer a customer: name the order, apologise, promise nothing.")
async def reply(messages: list[dict[str, Any]], order: str):
    answer = yield messages
    text = str(answer)
    yield await combine(
        SubScore("names the order", contains(text, order), weight=0.4),
        SubScore("apologises", contains_any(text, APOLOGIES), weight=0.4),
        SubScore("promises nothing", 1.0 - contains(text, "guarantee"), weight=0.2),
    )


@reply.solution
async def _(run, messages: list[dict[str, Any]], order: str):
    return f"I am sorry that {order} is late. I have asked the carrier and will write as soon as I know more."
