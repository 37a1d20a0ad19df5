"""One row for each bug, from easy to hard."""

from env import BUGS, fix_bug

from hud.eval import Taskset

TASKS = Taskset("coding", [fix_bug(bug=bug) for bug in BUGS])
