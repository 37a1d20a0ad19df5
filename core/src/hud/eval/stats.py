"""Means that say how sure they are, kept as sums so that a job of any length costs a few numbers a task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hud.eval.run import Run

PASSING = 1.0
"""A reward of this or more passes."""

LISTED = 10_000
"""Tasks that are counted one by one; of later ones only the sums over all are kept."""


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return math.fsum(values) / len(values) if values else None


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean of independent values; None for fewer than two."""
    return _standard_error(len(values), math.fsum(values), math.fsum(v * v for v in values))


def _standard_error(n: int, total: float, squares: float) -> float | None:
    if n < 2:
        return None
    return math.sqrt(max(squares - total * total / n, 0.0) / (n - 1) / n)


def clustered_standard_error(groups: Iterable[Sequence[float]]) -> float | None:
    """Return the standard error of the mean over all values, where values of one group (a task) go together.

    Attempts at one task are not independent: what counts is how the tasks' sums differ from the overall mean.
    None for fewer than two groups with values.
    Source: Miller 2024, "Adding Error Bars to Evals", equation 4, with the G/(G-1) correction for few groups.
    """
    sums = Clusters()
    for group in groups:
        sums.add(len(group), math.fsum(group))
    return sums.standard_error


def pass_at_k(attempts: int, passed: int, k: int) -> float | None:
    """Return the chance that at least one of `k` attempts passes; None for fewer than `k` attempts.

    Source: the unbiased estimator of Chen et al. 2021, "Evaluating Large Language Models Trained on Code".
    """
    if k < 1 or attempts < k:
        return None
    return 1.0 - math.comb(attempts - passed, k) / math.comb(attempts, k)


@dataclass(slots=True)
class Clusters:
    """The sums a clustered standard error needs: over groups of size n with sum S, of S², S·n and n²."""

    groups: int = 0
    n: int = 0
    total: float = 0.0
    sum_squares: float = 0.0
    sum_products: float = 0.0
    size_squares: int = 0

    def add(self, n: int, total: float, count: int = 1) -> None:
        """Count `count` groups of `n` values that add up to `total` each; empty ones do not count."""
        if n:
            self.groups += count
            self.n += n * count
            self.total += total * count
            self.sum_squares += total * total * count
            self.sum_products += total * n * count
            self.size_squares += n * n * count

    @property
    def standard_error(self) -> float | None:
        """Of the mean over all values; None for fewer than two groups."""
        if self.groups < 2:
            return None
        middle = self.total / self.n
        between = self.sum_squares - 2 * middle * self.sum_products + middle * middle * self.size_squares
        return math.sqrt(max(between, 0.0) * self.groups / (self.groups - 1)) / self.n


@dataclass(slots=True)
class TaskSummary:
    """The rollouts of one row: how many were graded, what they got, how many errors, how long they took."""

    slug: str
    index: int = 0
    """The place of the row's first rollout in the job."""
    graded: int = 0
    passed: int = 0
    total: float = 0.0
    squares: float = 0.0
    errors: int = 0
    seconds: float = 0.0

    def add(self, run: Run) -> None:
        """Count one run."""
        self.seconds += sum(run.phases_s.values())
        reward = run.grade.reward
        if reward is None:
            self.errors += 1
            return
        self.graded += 1
        self.passed += reward >= PASSING
        self.total += reward
        self.squares += reward * reward

    @property
    def runs(self) -> int:
        """How many ended, graded or not."""
        return self.graded + self.errors

    @property
    def mean(self) -> float | None:
        """The mean reward of those graded."""
        return self.total / self.graded if self.graded else None

    @property
    def standard_error(self) -> float | None:
        """Its standard error."""
        return _standard_error(self.graded, self.total, self.squares)

    def pass_at(self, k: int) -> float | None:
        """The chance that one of `k` attempts passes."""
        return pass_at_k(self.graded, self.passed, k)

    def model_dump(self) -> dict[str, Any]:
        """Return the row of a table, JSON's types."""
        return {
            "slug": self.slug,
            "runs": self.runs,
            "graded": self.graded,
            "errors": self.errors,
            "mean": self.mean,
            "standard_error": self.standard_error,
            "pass_at": {str(k): self.pass_at(k) for k in powers_of_two(self.graded)},
            "mean_seconds": self.seconds / self.runs if self.runs else None,
        }


@dataclass(slots=True)
class JobSummary:
    """A job per task and over all.

    Of a job with more than `LISTED` tasks, `tasks` has the first, and `others` the sums of the rest.
    """

    tasks: dict[str, TaskSummary] = field(default_factory=dict)
    others: TaskSummary = field(default_factory=lambda: TaskSummary("(others)"))
    listed: int = LISTED
    took_s: float | None = field(default=None, compare=False)
    """What the whole job took, where that is known."""

    def add(self, run: Run) -> None:
        """Count one run."""
        summary = self.tasks.get(run.slug)
        if summary is None:
            if len(self.tasks) >= self.listed:
                self.others.add(run)
                return
            summary = self.tasks[run.slug] = TaskSummary(run.slug, run.index)
        summary.index = min(summary.index, run.index)
        summary.add(run)

    def take(self, sums: Mapping[str, Any]) -> None:
        """Count the runs of one row by their sums, as a job file keeps them."""
        summary = TaskSummary(
            slug=sums["slug"],
            index=sums["place"],
            graded=sums["graded"],
            passed=sums["passed"],
            total=sums["reward_sum"],
            squares=sums["reward_squares"],
            errors=sums["errors"],
            seconds=sums["seconds"],
        )
        if len(self.tasks) < self.listed:
            self.tasks[summary.slug] = summary
            return
        for name in ("graded", "passed", "total", "squares", "errors", "seconds"):
            setattr(self.others, name, getattr(self.others, name) + getattr(summary, name))

    def drop(self, slug: str, reward: float | None, seconds: float) -> None:
        """Count a run no more, which is run again."""
        summary = self.tasks.get(slug, self.others)
        summary.seconds -= seconds
        if reward is None:
            summary.errors -= 1
            return
        summary.graded -= 1
        summary.passed -= reward >= PASSING
        summary.total -= reward
        summary.squares -= reward * reward

    def in_order(self) -> list[TaskSummary]:
        """Return the tasks in the order of the job's rows."""
        return sorted(self.tasks.values(), key=lambda task: task.index)

    def _all(self) -> list[TaskSummary]:
        return [*self.tasks.values(), self.others]

    @property
    def graded(self) -> int:
        """How many runs have a reward."""
        return sum(task.graded for task in self._all())

    @property
    def errors(self) -> int:
        """How many runs ended without a reward."""
        return sum(task.errors for task in self._all())

    @property
    def runs(self) -> int:
        """How many ended."""
        return self.graded + self.errors

    @property
    def mean(self) -> float | None:
        """The mean over all graded runs."""
        graded = self.graded
        return math.fsum(task.total for task in self._all()) / graded if graded else None

    @property
    def standard_error(self) -> float | None:
        """Clustered by task (a run of `others` counts as a task of its own); of one task, over its attempts."""
        with_grades = [task for task in self.tasks.values() if task.graded]
        others = self.others
        if len(with_grades) == 1 and not others.graded:
            return with_grades[0].standard_error
        sums = Clusters()
        for task in with_grades:
            sums.add(task.graded, task.total)
        if others.graded:
            sums.groups += others.graded
            sums.n += others.graded
            sums.total += others.total
            sums.sum_squares += others.squares
            sums.sum_products += others.total
            sums.size_squares += others.graded
        return sums.standard_error

    def pass_at(self, k: int) -> float | None:
        """Return the mean of pass@k over the listed tasks that have `k` graded attempts."""
        return mean([value for task in self.tasks.values() if (value := task.pass_at(k)) is not None])

    def model_dump(self) -> dict[str, Any]:
        """Return totals and the rows of the table, JSON's types."""
        most = max((task.graded for task in self.tasks.values()), default=0)
        return {
            "runs": self.runs,
            "graded": self.graded,
            "errors": self.errors,
            "mean": self.mean,
            "standard_error": self.standard_error,
            "pass_at": {str(k): self.pass_at(k) for k in powers_of_two(most)},
            "tasks": [task.model_dump() for task in self.in_order()],
            "runs_of_tasks_not_listed": self.others.runs,
        }

    def __str__(self) -> str:
        """Return the table that `hud eval` ends with."""
        from hud.eval.summarytable import closing_table

        return closing_table(self, seconds=self.took_s)


def powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4 and so on, up to `most`."""
    found, k = [], 1
    while k <= most:
        found.append(k)
        k *= 2
    return found
