"""The contract of a grader: a value within 0 and 1, or an error; never anything between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from hud.errors import GraderError, HudError
from hud.graders import Grader, combine
from hud.testing.contract import Contract, asynchronous
from hud.types import EvaluationResult, SubScore


@dataclass(frozen=True, slots=True)
class Graded:
    """Arguments of `grade`, and the value they must give; None where any value will do.

    With `fails`, grading these must raise `GraderError`.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None
    fails: bool = False


class GraderContract(Contract):
    """Inherit it, name the `grader`, and supply `cases`.

    `deterministic` says that the same arguments give the same value each time.
    """

    grader: ClassVar[type[Grader]]
    deterministic: ClassVar[bool] = True

    @pytest.fixture
    def cases(self) -> Sequence[Graded]:
        """Supply this: at least one case that succeeds."""
        pytest.fail(f"{type(self).__name__} must supply the fixture cases")

    @pytest.fixture
    def graded(self, cases: Sequence[Graded]) -> Sequence[Graded]:
        """The cases that succeed."""
        found = [case for case in cases if not case.fails]
        assert found, "supply at least one case that succeeds"
        return found

    @asynchronous
    async def test_gives_the_values_expected(self, graded: Sequence[Graded]) -> None:
        for case in graded:
            score = await self.grader.grade(**case.arguments)
            assert isinstance(score, SubScore)
            assert 0.0 <= score.value <= 1.0
            if case.value is not None:
                assert score.value == pytest.approx(case.value), f"for {dict(case.arguments)!r}"

    @asynchronous
    async def test_carries_weight_and_name(self, graded: Sequence[Graded]) -> None:
        arguments = graded[0].arguments
        plain = await self.grader.grade(**arguments)
        assert plain.weight == 1.0
        assert plain.name
        named = await self.grader.grade(weight=-0.5, name="penalty", **arguments)
        assert (named.weight, named.name) == (-0.5, "penalty")
        assert named.value == pytest.approx(plain.value) or not self.deterministic

    @asynchronous
    async def test_results_can_be_kept(self, graded: Sequence[Graded]) -> None:
        for case in graded:
            score = await self.grader.grade(**case.arguments)
            kept = json.loads(score.model_dump_json())
            assert kept["value"] == score.value

    @asynchronous
    async def test_grades_many_at_once_as_one_by_one(self, graded: Sequence[Graded]) -> None:
        async with asyncio.TaskGroup() as group:
            grading = [
                (case, group.create_task(self.grader.grade(**case.arguments))) for case in list(graded) * 4
            ]
        for case, task in grading:
            if case.value is not None:
                assert task.result().value == pytest.approx(case.value)

    @asynchronous
    async def test_combines_with_others(self, graded: Sequence[Graded]) -> None:
        arguments = graded[0].arguments
        result = await combine(
            self.grader.grade(weight=1.0, name="one", **arguments),
            self.grader.grade(weight=3.0, name="two", **arguments),
        )
        assert isinstance(result, EvaluationResult)
        assert [score.name for score in result.subscores or ()] == ["one", "two"]
        assert 0.0 <= result.reward <= 1.0

    @asynchronous
    async def test_a_failure_is_an_error_and_never_a_value(self, cases: Sequence[Graded]) -> None:
        failing = [case for case in cases if case.fails]
        if not failing:
            pytest.skip("no case is said to fail")
        for case in failing:
            with pytest.raises(GraderError):
                await self.grader.grade(**case.arguments)

    @asynchronous
    async def test_unknown_arguments_are_refused(self, graded: Sequence[Graded]) -> None:
        with pytest.raises((TypeError, HudError)):
            await self.grader.grade(**graded[0].arguments, no_such_argument=1)

    @asynchronous
    async def test_cancelling_passes_through(self, graded: Sequence[Graded]) -> None:
        grading = asyncio.create_task(self.grader.grade(**graded[0].arguments))
        grading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await grading
