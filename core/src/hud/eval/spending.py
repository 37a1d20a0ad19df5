"""What one try of a rollout takes of the job's budget beside its model calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hud.eval.run import Run


class Spending:
    """Follows a try from before its placement: `acting`, `graded`, `over`, in this order, each at most once."""

    __slots__ = ("_acting", "_placement", "_purse", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._purse = None if run.meter is None else run.meter.purse
        self._acting = False
        clock = None if self._purse is None else self._purse.clock
        self._placement = None if clock is None else clock.placing()

    def acting(self) -> None:
        """The agent begins: what grading will take is kept back from now on."""
        if self._purse is not None:
            self._acting = True
            self._purse.began_acting()

    def graded(self) -> None:
        """The work is graded, or never will be."""
        if self._purse is not None and self._acting:
            self._acting = False
            meter = self._run.meter
            used = None if meter is None or not self._run.grade.graded else meter.for_grading
            self._purse.ended_acting(graded=self._run.grade.graded, used=used)

    def over(self) -> None:
        """The placement was given back."""
        if self._purse is not None and self._purse.clock is not None and self._placement is not None:
            phases = self._run.phases_s
            tail = phases.get("grade", 0.0) + phases.get("release", 0.0)
            self._purse.clock.released(self._placement, tail)
            self._placement = None
