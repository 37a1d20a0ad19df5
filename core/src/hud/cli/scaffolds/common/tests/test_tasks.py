"""Every task can be solved, and doing nothing does not solve it."""

import asyncio

from tasks import TASKS

from hud.agents import create_agent


def test_the_solution_of_every_task_scores_1() -> None:
    job = asyncio.run(TASKS.run(create_agent("oracle")))
    assert [run.reward for run in job.runs] == [1.0] * len(TASKS)


def test_doing_nothing_never_scores_1() -> None:
    job = asyncio.run(TASKS.run(create_agent("noop")))
    assert all(run.reward < 1.0 for run in job.runs)
