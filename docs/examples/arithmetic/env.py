"""State and hooks: a table is loaded once per environment, and the tasks are data."""

import csv
from pathlib import Path

from hud.environment import Environment
from hud.graders import numeric_match

env = Environment(name="arithmetic")
prices: dict[str, float] = {}


@env.initialize
async def _load_prices():
    with Path(__file__).with_name("prices.csv").open(encoding="utf-8") as lines:
        prices.update({row["item"]: float(row["price"]) for row in csv.DictReader(lines)})


@env.shutdown
async def _forget_prices():
    prices.clear()


@env.template(description="Add up a shopping basket.")
async def basket(items: dict[str, int], discount: float = 0.0):
    lines = "\n".join(f"{count} x {item} at {prices[item]:.2f}" for item, count in items.items())
    answer = yield f"What does this basket cost with a discount of {discount:.0%}?\n{lines}\nAnswer with the amount."
    cost = sum(prices[item] * count for item, count in items.items()) * (1 - discount)
    yield numeric_match(str(answer), cost, tolerance=0.005)


@basket.solution
async def _(run, items: dict[str, int], discount: float = 0.0):
    # A solution has what an agent has: the prompt, not the environment's memory.
    total = 0.0
    for line in run.prompt_text.splitlines()[1:-1]:
        count, _, rest = line.partition(" x ")
        total += int(count) * float(rest.rpartition(" at ")[2])
    return f"{total * (1 - discount):.2f}"
