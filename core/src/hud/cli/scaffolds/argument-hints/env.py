"""A template whose arguments say what they are for, so that an editor can offer the right field for each."""

from hud.environment import Environment
from hud.graders import contains_all
from hud.types import GradingArg, PromptArg

env = Environment(name="{{name}}")


@env.template(description="Any question, scored by what its answer has to mention.")
async def ask(question: PromptArg, must_mention: GradingArg[str]):
    answer = yield question
    yield contains_all(str(answer), must_mention)


@ask.solution
async def _(run, question: str, must_mention: list[str]):
    return ", ".join(must_mention)
