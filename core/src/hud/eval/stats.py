"""Means that say how sure they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hud.eval.run import Run

PASSING = 1.0
"""A reward of this or more passes."""


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return math.fsum(values) / len(values) if values else None


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean of independent values; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    middle = math.fsum(values) / n
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (n - 1) / n)


def clustered_standard_error(groups: Iterable[Sequence[float]]) -> float | None:
    """Return the standard error of the mean over all values, where values of one group (a task) go together.

    Attempts at one task are not independent: what counts is how the tasks' sums differ from the overall mean.
    None for fewer than two groups with values.
    Source: Miller 2024, "Adding Error Bars to Evals", equation 4, with the G/(G-1) correction for few groups.
    """
    kept = [group for group in groups if group]
    if len(kept) < 2:
        return None
    total = sum(len(group) for group in kept)
    middle = math.fsum(math.fsum(group) for group in kept) / total
    between = math.fsum(math.fsum(v - middle for v in group) ** 2 for group in kept)
    return math.sqrt(between * len(kept) / (len(kept) - 1)) / total


def pass_at_k(attempts: int, passed: int, k: int) -> float | None:
    """Return the chance that at least one of `k` attempts passes; None for fewer than `k` attempts.

    Source: the unbiased estimator of Chen et al. 2021, "Evaluating Large Language Models Trained on Code".
    """
    if k < 1 or attempts < k:
        return None
    return 1.0 - math.comb(attempts - passed, k) / math.comb(attempts, k)


@dataclass(slots=True)
class TaskSummary:
    """The rollouts of one row: rewards of those graded, how many errors, how long they took."""

    slug: str
    rewards: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0

    def add(self, run: Run) -> None:
        """Count one run."""
        self.seconds += sum(run.phases_s.values())
        if run.grade.reward is None:
            self.errors += 1
        else:
            self.rewards.append(run.grade.reward)

    @property
    def runs(self) -> int:
        """How many ended, graded or not."""
        return len(self.rewards) + self.errors

    @property
    def mean(self) -> float | None:
        """The mean reward of those graded."""
        return mean(self.rewards)

    @property
    def standard_error(self) -> float | None:
        """Its standard error."""
        return standard_error(self.rewards)

    def pass_at(self, k: int) -> float | None:
        """The chance that one of `k` attempts passes."""
        return pass_at_k(len(self.rewards), sum(r >= PASSING for r in self.rewards), k)

    def model_dump(self) -> dict[str, Any]:
        """Return the row of a table, JSON's types."""
        return {
            "slug": self.slug,
            "runs": self.runs,
            "graded": len(self.rewards),
            "errors": self.errors,
            "mean": self.mean,
            "standard_error": self.standard_error,
            "pass_at": {str(k): self.pass_at(k) for k in powers_of_two(len(self.rewards))},
            "mean_seconds": self.seconds / self.runs if self.runs else None,
        }


@dataclass(slots=True)
class JobSummary:
    """A job per task and over all."""

    tasks: dict[str, TaskSummary] = field(default_factory=dict)

    def add(self, run: Run) -> None:
        """Count one run."""
        summary = self.tasks.get(run.slug)
        if summary is None:
            summary = self.tasks[run.slug] = TaskSummary(run.slug)
        summary.add(run)

    @property
    def mean(self) -> float | None:
        """The mean over all graded runs."""
        return mean([reward for task in self.tasks.values() for reward in task.rewards])

    @property
    def standard_error(self) -> float | None:
        """Clustered by task; of a single task, over its attempts."""
        groups = [task.rewards for task in self.tasks.values()]
        if sum(bool(group) for group in groups) == 1:
            return next(standard_error(group) for group in groups if group)
        return clustered_standard_error(groups)

    @property
    def errors(self) -> int:
        """How many runs ended without a reward."""
        return sum(task.errors for task in self.tasks.values())

    @property
    def runs(self) -> int:
        """How many ended."""
        return sum(task.runs for task in self.tasks.values())

    def pass_at(self, k: int) -> float | None:
        """Return the mean of pass@k over the tasks that have `k` graded attempts."""
        return mean([value for task in self.tasks.values() if (value := task.pass_at(k)) is not None])

    def model_dump(self) -> dict[str, Any]:
        """Return totals and the rows of the table, JSON's types."""
        most = max((len(task.rewards) for task in self.tasks.values()), default=0)
        return {
            "runs": self.runs,
            "graded": self.runs - self.errors,
            "errors": self.errors,
            "mean": self.mean,
            "standard_error": self.standard_error,
            "pass_at": {str(k): self.pass_at(k) for k in powers_of_two(most)},
            "tasks": [task.model_dump() for task in self.tasks.values()],
        }

    def __str__(self) -> str:
        """Return a plain table."""
        rows = [("task", "runs", "mean", "±", "errors", "seconds")]
        for task in self.tasks.values():
            seconds = task.seconds / task.runs if task.runs else 0.0
            rows.append(
                (
                    task.slug,
                    str(task.runs),
                    _shown(task.mean),
                    _shown(task.standard_error),
                    str(task.errors),
                    f"{seconds:.2f}",
                )
            )
        rows.append(
            ("all", str(self.runs), _shown(self.mean), _shown(self.standard_error), str(self.errors), "")
        )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4 and so on, up to `most`."""
    found, k = [], 1
    while k <= most:
        found.append(k)
        k *= 2
    return found


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
