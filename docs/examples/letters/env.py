"""Text tasks: one template, any word and letter."""

from hud.environment import Environment

env = Environment(name="letters", version="1.0.0")


@env.template(description="Count how often a letter occurs in a word.")
async def count(word: str, letter: str):
    answer = yield f"How many times does the letter {letter!r} occur in {word!r}? Answer with the number only."
    yield 1.0 if str(answer).strip() == str(word.count(letter)) else 0.0


@env.template(description="Spell a word backwards.")
async def reverse(word: str):
    answer = yield f"Spell {word!r} backwards. Answer with the letters only."
    yield 1.0 if str(answer).strip() == word[::-1] else 0.0


@count.solution
async def _(run, word: str, letter: str):
    return str(word.count(letter))


@reverse.solution
async def _(run, word: str):
    return word[::-1]
