"""What the agent is asked, and how its answer is scored."""

from hud.environment import Environment

env = Environment(name="{{name}}")


@env.template(description="Count how often a letter occurs in a word.")
async def count_letter(word: str = "strawberry", letter: str = "r"):
    answer = yield f"How many times does the letter {letter!r} occur in {word!r}? Answer with the number only."
    yield 1.0 if str(answer).strip() == str(word.count(letter)) else 0.0


# What the `oracle` agent answers: it proves that the task can be solved and that the score is then 1.0.
@count_letter.solution
async def _(run, word: str = "strawberry", letter: str = "r"):
    return str(word.count(letter))
