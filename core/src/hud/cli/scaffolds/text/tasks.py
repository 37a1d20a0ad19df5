"""The tasks to run: one template, many rows."""

from env import estimate, explain, recall

from hud.eval import Taskset

TASKS = Taskset(
    "{{name}}",
    [
        recall(question="What is the capital of Peru?", expected="Lima"),
        recall(question="Who wrote 'Frankenstein'?", expected="Mary Shelley"),
        estimate(question="How many seconds does a day have?", expected=86400),
        estimate(question="What is pi to two decimals?", expected=3.14, tolerance=0.005),
        explain(topic="photosynthesis", must_mention=["light", "carbon dioxide", "oxygen"]),
    ],
)
