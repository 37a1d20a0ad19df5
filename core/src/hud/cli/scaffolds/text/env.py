"""Questions with a text answer, scored without a model."""

from hud.environment import Environment
from hud.graders import combine, contains_all, exact_match, numeric_match
from hud.types import SubScore

env = Environment(name="{{name}}")


@env.template(description="A question with one right answer; upper case and articles do not matter.")
async def recall(question: str, expected: str):
    answer = yield f"{question} Answer with a few words."
    yield exact_match(str(answer), expected)


@env.template(description="A question whose answer is a number.")
async def estimate(question: str, expected: float, tolerance: float = 0.0):
    answer = yield f"{question} Answer with a number."
    yield numeric_match(str(answer), expected, tolerance=tolerance)


@env.template(description="A short text that has to mention several things.")
async def explain(topic: str, must_mention: list[str], max_words: int = 80):
    answer = yield f"Explain {topic} in at most {max_words} words."
    text = str(answer)
    yield await combine(
        SubScore("mentions", contains_all(text, must_mention), weight=0.75),
        SubScore("length", 1.0 if 0 < len(text.split()) <= max_words else 0.0, weight=0.25),
    )


@recall.solution
async def _(run, question: str, expected: str):
    return expected


@estimate.solution
async def _(run, question: str, expected: float, tolerance: float = 0.0):
    return str(expected)


@explain.solution
async def _(run, topic: str, must_mention: list[str], max_words: int = 80):
    return f"{topic}: {', '.join(must_mention)}."
