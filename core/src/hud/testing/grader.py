"""The contract of a grader: a value within 0 and 1, or an error; never anything between."""

from __future__ import annotations

import asyncio
import json
import math
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

    The grader itself declares whether it is `deterministic`: that the same arguments give the same value each time.
    """

    grader: ClassVar[type[Grader]]

    @property
    def deterministic(self) -> bool:
        """What the grader declares."""
        return self.grader.deterministic

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
    async def test_the_same_arguments_give_the_same_value_where_it_says_so(
        self, graded: Sequence[Graded]
    ) -> None:
        if not self.deterministic:
            pytest.skip("declared as not deterministic")
        for case in graded:
            values = [(await self.grader.grade(**case.arguments)).value for _ in range(3)]
            assert len(set(values)) == 1, f"{values} for {dict(case.arguments)!r}"

    @asynchronous
    async def test_every_part_lies_within_bounds_and_has_a_name_of_its_own(
        self, graded: Sequence[Graded]
    ) -> None:
        for case in graded:
            _check_parts(await self.grader.grade(**case.arguments))

    @asynchronous
    async def test_any_finite_weight_is_kept_and_others_are_refused(self, graded: Sequence[Graded]) -> None:
        arguments = graded[0].arguments
        for weight in (0.0, -3.5, 1e6):
            assert (await self.grader.grade(weight=weight, **arguments)).weight == weight
        for weight in (math.nan, math.inf):
            with pytest.raises((HudError, ValueError)):
                await self.grader.grade(weight=weight, **arguments)

    @asynchronous
    async def test_results_can_be_kept(self, graded: Sequence[Graded]) -> None:
        for case in graded:
            score = await self.grader.grade(**case.arguments)
            text = score.model_dump_json()
            assert json.loads(text)["value"] == score.value
            again = SubScore.model_validate_json(text)
            assert again.model_dump(mode="json") == score.model_dump(mode="json")
            json.dumps(score.to_summary(), allow_nan=False)

    @asynchronous
    async def test_arguments_are_left_as_they_were(self, graded: Sequence[Graded]) -> None:
        for case in graded:
            before = repr(case.arguments)
            await self.grader.grade(**case.arguments)
            assert repr(case.arguments) == before

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
            with pytest.raises(GraderError) as failed:
                await self.grader.grade(**case.arguments)
            assert str(failed.value).strip(), "the error says nothing"
            assert isinstance(failed.value.retryable, bool)

    @asynchronous
    async def test_a_failure_among_others_fails_the_whole(self, cases: Sequence[Graded]) -> None:
        failing = [case for case in cases if case.fails]
        good = [case for case in cases if not case.fails]
        if not failing or not good:
            pytest.skip("needs a case that fails and one that succeeds")
        with pytest.raises(GraderError):
            await combine(self.grader.grade(**good[0].arguments), self.grader.grade(**failing[0].arguments))

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


def _check_parts(score: SubScore) -> None:
    assert 0.0 <= score.value <= 1.0
    assert math.isfinite(score.weight)
    assert score.name.strip(), "a part without a name"
    children = score.children or []
    names = [child.name for child in children]
    assert len(set(names)) == len(names), f"parts of one name: {names}"
    for child in children:
        _check_parts(child)
