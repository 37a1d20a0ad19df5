"""The tasks to run: one template, many rows."""

from env import count_letter

from hud.eval import Taskset

TASKS = Taskset(
    "{{name}}",
    [
        count_letter(),
        count_letter(word="mississippi", letter="s"),
    ],
)
