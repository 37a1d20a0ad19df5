"""The tasks to run."""

from env import fix

from hud.eval import Taskset

TASKS = Taskset("{{name}}", [fix(module="stats")])
