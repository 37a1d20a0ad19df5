"""The tasks to run: one template, many conversations."""

from env import support

from hud.eval import Taskset

TASKS = Taskset(
    "{{name}}",
    [
        support(
            order="A-1042",
            messages=[
                {"role": "user", "content": "Hello?"},
                {"role": "assistant", "content": "Hello! How can I help?"},
                {"role": "user", "content": "My order A-1042 should have been here a week ago."},
            ],
        ),
        support(
            order="B-77",
            messages=[{"role": "user", "content": "Where is B-77? I am getting angry."}],
        ),
    ],
)
