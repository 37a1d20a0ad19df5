"""The tasks to run: one template, many rows."""

from env import ask

from hud.eval import Taskset

TASKS = Taskset(
    "{{name}}",
    [
        ask(question="Name the three primary colours of light.", must_mention=["red", "green", "blue"]),
        ask(question="Which two planets have no moon?", must_mention=["Mercury", "Venus"]),
    ],
)
