"""Two conversations."""

from env import reply

from hud.eval import Taskset

TASKS = Taskset(
    "support",
    [
        reply(
            order="A-1042",
            messages=[
                {"role": "user", "content": "Hello?"},
                {"role": "assistant", "content": "Hello! How can I help?"},
                {"role": "user", "content": "Order A-1042 should have been here a week ago."},
            ],
        ).model_copy(update={"slug": "late-parcel"}),
        reply(
            order="B-77",
            messages=[{"role": "user", "content": "Where is B-77? I am getting angry."}],
        ).model_copy(update={"slug": "angry-customer"}),
    ],
)
