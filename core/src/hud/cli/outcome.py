"""What the command line keeps of a finished rollout, and what it makes of many."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished rollout.

    `reward` is None where it was not graded, and `error` says why; what an agent achieved before it failed is
    graded, so that there can be both.
    """

    slug: str
    reward: float | None
    error: str | None
    seconds: float
    record: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether it got the full reward."""
        return self.reward is not None and self.reward >= 1.0


@dataclass(slots=True)
class TaskScore:
    """The rollouts of one row so far: sums, so that a job of any size costs a few numbers a row."""

    slug: str
    graded: int = 0
    errors: int = 0
    passed: int = 0
    total: float = 0.0
    squares: float = 0.0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one rollout."""
        self.seconds += outcome.seconds
        if outcome.reward is None:
            self.errors += 1
            return
        self.graded += 1
        self.passed += outcome.passed
        self.total += outcome.reward
        self.squares += outcome.reward * outcome.reward

    @property
    def runs(self) -> int:
        """How many rollouts ended."""
        return self.graded + self.errors

    @property
    def mean(self) -> float | None:
        """The mean reward of those that were graded."""
        return self.total / self.graded if self.graded else None

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean; None for fewer than two."""
        return _standard_error(self.graded, self.total, self.squares)

    @property
    def mean_seconds(self) -> float:
        """The mean duration of a rollout."""
        return self.seconds / self.runs if self.runs else 0.0

    def pass_at(self, k: int) -> float | None:
        """Return the chance that one of `k` attempts gets the full reward; None for fewer than `k` graded.

        Source: the unbiased estimator of Chen et al. 2021, "Evaluating Large Language Models Trained on Code".
        """
        if self.graded < k:
            return None
        return 1.0 - math.comb(self.graded - self.passed, k) / math.comb(self.graded, k)


@dataclass(slots=True)
class Tally:
    """A job so far. `expected` is the number of rollouts to come to, None for an endless taskset."""

    expected: int | None = None
    group: int = 1
    tasks: dict[str, TaskScore] = field(default_factory=dict)
    done: int = 0
    errors: int = 0
    total: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count one rollout."""
        self.done += 1
        score = self.tasks.get(outcome.slug)
        if score is None:
            score = self.tasks[outcome.slug] = TaskScore(outcome.slug)
        score.add(outcome)
        if outcome.reward is None:
            self.errors += 1
        else:
            self.total += outcome.reward

    @property
    def graded(self) -> int:
        """How many rollouts have a reward."""
        return self.done - self.errors

    @property
    def mean(self) -> float | None:
        """The mean reward over all graded rollouts."""
        return self.total / self.graded if self.graded else None

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean, over the means of tasks where there are several.

        Attempts at one task are alike, so that counting each as independent would promise too much.
        """
        means = [score.mean for score in self.tasks.values() if score.mean is not None]
        if len(means) == 1:
            return next(score.standard_error for score in self.tasks.values() if score.mean is not None)
        return _standard_error(len(means), math.fsum(means), math.fsum(m * m for m in means))

    def pass_at(self, k: int) -> float | None:
        """Return the mean of pass@k over the tasks that have it."""
        found = [value for score in self.tasks.values() if (value := score.pass_at(k)) is not None]
        return math.fsum(found) / len(found) if found else None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job began."""
        return time.monotonic() - self.started

    @property
    def per_second(self) -> float:
        """Finished rollouts per second since the job began."""
        return self.done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the rate so far; None while nothing is known."""
        if self.expected is None or not self.done:
            return None
        return (self.expected - self.done) / self.per_second


def tally_of(outcomes: Iterable[Outcome], *, expected: int | None = None, group: int = 1) -> Tally:
    """Count `outcomes`."""
    tally = Tally(expected=expected, group=group)
    for outcome in outcomes:
        tally.add(outcome)
    return tally


def _standard_error(n: int, total: float, squares: float) -> float | None:
    if n < 2:
        return None
    variance = max(squares - total * total / n, 0.0) / (n - 1)
    return math.sqrt(variance / n)
