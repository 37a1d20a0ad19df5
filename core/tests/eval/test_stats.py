"""Statistics agree with their definitions."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hud.eval import Run
from hud.eval.stats import JobSummary, clustered_standard_error, mean, pass_at_k, standard_error
from hud.types import Task

rewards = st.floats(-10, 10).map(lambda value: round(value, 6))


def run_of(slug: str, reward: float | None, index: int = 0) -> Run:
    run = Run(task=Task(env="desk", id="add", slug=slug), index=index)
    if reward is not None:
        run.finish({"score": reward})
    return run


@given(st.lists(rewards, min_size=2, max_size=30))
def test_the_standard_error_is_that_of_a_mean(values: list[float]) -> None:
    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert standard_error(values) == pytest.approx(expected, abs=1e-6)


def test_nothing_has_no_mean_and_one_has_no_error() -> None:
    assert mean([]) is None
    assert standard_error([1.0]) is None
    assert clustered_standard_error([[1.0, 0.0]]) is None


@given(st.lists(st.lists(rewards, min_size=1, max_size=5), min_size=2, max_size=10))
def test_the_clustered_error_follows_its_formula(groups: list[list[float]]) -> None:
    values = [value for group in groups for value in group]
    middle = statistics.fmean(values)
    between = sum(sum(v - middle for v in group) ** 2 for group in groups)
    expected = math.sqrt(between * len(groups) / (len(groups) - 1)) / len(values)
    assert clustered_standard_error(groups) == pytest.approx(expected, abs=1e-5)


@given(st.lists(rewards, min_size=2, max_size=20))
def test_of_single_attempts_the_clustered_error_is_the_plain_one(values: list[float]) -> None:
    assert clustered_standard_error([[v] for v in values]) == pytest.approx(standard_error(values), abs=1e-6)


def test_attempts_that_agree_add_no_certainty() -> None:
    once = clustered_standard_error([[1.0], [0.0], [1.0], [0.0]])
    often = clustered_standard_error([[1.0] * 9, [0.0] * 9, [1.0] * 9, [0.0] * 9])
    assert once == pytest.approx(often)


@given(st.integers(1, 8), st.integers(0, 8), st.integers(1, 8))
def test_pass_at_k_counts_subsets(n: int, passed: int, k: int) -> None:
    passed = min(passed, n)
    if k > n:
        assert pass_at_k(n, passed, k) is None
        return
    outcomes = [True] * passed + [False] * (n - passed)
    subsets = list(itertools.combinations(outcomes, k))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n, passed, k) == pytest.approx(expected)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.one_of(st.none(), rewards)), min_size=1, max_size=60),
    st.integers(1, 8),
)
def test_a_job_of_many_tasks_keeps_its_totals(runs: list[tuple[int, float | None]], listed: int) -> None:
    summary = JobSummary(listed=listed)
    for index, (task, reward) in enumerate(runs):
        summary.add(run_of(f"t{task}", reward, index))
    graded = [reward for _, reward in runs if reward is not None]
    assert summary.runs == len(runs)
    assert summary.errors == len(runs) - len(graded)
    assert len(summary.tasks) <= listed
    assert summary.mean == pytest.approx(mean(graded), abs=1e-9)
    dumped = summary.model_dump()
    assert sum(row["runs"] for row in dumped["tasks"]) + dumped["runs_of_tasks_not_listed"] == len(runs)
    several = len({task for task, _ in runs}) > 1
    assert any(line.startswith("all") for line in str(summary).splitlines()) == several


def test_tasks_are_listed_in_the_order_of_the_rows() -> None:
    summary = JobSummary()
    for index in (3, 1, 0, 2):
        summary.add(run_of(f"t{index}", 1.0, index))
    assert [task.slug for task in summary.in_order()] == ["t0", "t1", "t2", "t3"]
