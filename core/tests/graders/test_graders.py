"""Graders and how they are combined: a value, or an error, never something in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hud.errors import BudgetExhaustedError, GraderError, ProviderError, SandboxError
from hud.graders import EvaluationResult, Grader, SubScore, combine, combine_all, combine_any

pytestmark = pytest.mark.anyio


class Fixed(Grader):
    """Returns, or raises, what it is given."""

    name = "fixed"

    @classmethod
    async def compute_score(cls, *, outcome: Any = 1.0, delay_s: float = 0.0) -> Any:
        await asyncio.sleep(delay_s)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def test_a_weight_is_optional_and_comes_first() -> None:
    assert (await Fixed.grade()).weight == 1.0
    assert (await Fixed.grade(0.5, "mine")).name == "mine"
    assert (await Fixed.grade(weight=-0.5)).weight == -0.5


async def test_what_compute_score_may_return() -> None:
    assert (await Fixed.grade(outcome=0.25)).value == 0.25
    assert (await Fixed.grade(outcome=1)).value == 1.0
    with_info = await Fixed.grade(outcome=(0.5, {"why": "half"}))
    assert with_info.info == {"why": "half", "_parameters": {"outcome": [0.5, {"why": "half"}]}}
    inner = SubScore("inner", 0.5, 3.0, children=[SubScore("leaf", 1.0)], info={"a": 1})
    outer = await Fixed.grade(2.0, outcome=inner)
    assert (outer.name, outer.value, outer.weight) == ("fixed", 0.5, 2.0)
    assert outer.children == inner.children
    assert outer.info is not None
    assert outer.info["a"] == 1


@pytest.mark.parametrize(
    "outcome",
    [None, "1.0", True, float("nan"), float("inf"), 1.5, -0.1, (0.5,), (0.5, "why"), [1.0], object()],
    ids=lambda value: type(value).__name__,
)
async def test_a_value_that_is_none_is_a_grader_error(outcome: Any) -> None:
    with pytest.raises(GraderError, match="grader 'fixed'"):
        await Fixed.grade(outcome=outcome)


async def test_whatever_a_grader_raises_is_a_grader_error_with_its_cause() -> None:
    cause = ValueError("no table")
    with pytest.raises(GraderError, match="grader 'fixed' raised ValueError: no table") as caught:
        await Fixed.grade(outcome=cause)
    assert caught.value.__cause__ is cause
    assert not caught.value.retryable
    with pytest.raises(GraderError, match="without a message"):
        await Fixed.grade(outcome=KeyError())
    with pytest.raises(GraderError, match="unexpected keyword argument 'outcom'"):
        await Fixed.grade(outcom=1.0)
    with pytest.raises(GraderError) as caught:
        await Fixed.grade(outcome=ProviderError("overloaded", retryable=True))
    assert caught.value.retryable


@pytest.mark.parametrize("error", [GraderError("x"), SandboxError("x"), BudgetExhaustedError("x")])
async def test_errors_that_say_who_failed_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await Fixed.grade(outcome=error)
    assert caught.value is error


async def test_a_grader_without_compute_score_is_an_error() -> None:
    class Empty(Grader):
        pass

    with pytest.raises(GraderError, match="Empty must define"):
        await Empty.grade()


async def test_parameters_are_kept_short_and_json() -> None:
    class Keeps(Grader):
        @classmethod
        async def compute_score(cls, **parameters: Any) -> float:
            return 1.0

    score = await Keeps.grade(answer="x" * 5000, thing=object, n=1)
    assert score.name == "Keeps"
    assert score.info is not None
    kept = score.info["_parameters"]
    assert len(kept["answer"]) < 2100
    assert kept["thing"] == "<class 'object'>"
    assert kept["n"] == 1


async def test_combine_scales_positive_weights_and_keeps_penalties() -> None:
    result = await combine(Fixed.grade(1.0), SubScore("half", 0.5, 3.0), SubScore("late", 1.0, -0.25))
    assert isinstance(result, EvaluationResult)
    assert result.reward == pytest.approx(0.25 + 0.375 - 0.25)
    assert result.subscores is not None
    assert [part.weight for part in result.subscores] == [0.25, 0.75, -0.25]


async def test_a_combined_reward_may_be_negative() -> None:
    result = await combine(SubScore("good", 0.0), SubScore("bad", 1.0, -2.0))
    assert result.reward == -2.0


weights = st.floats(0.001, 1000.0)
values = st.floats(0.0, 1.0)


@given(st.lists(st.tuples(values, weights), min_size=1, max_size=8))
def test_without_penalties_the_reward_lies_between_the_values(parts: list[tuple[float, float]]) -> None:
    result = asyncio.run(combine(*(SubScore("s", value, weight) for value, weight in parts)))
    assert min(v for v, _ in parts) - 1e-9 <= result.reward <= max(v for v, _ in parts) + 1e-9
    assert result.subscores is not None
    assert sum(part.weight for part in result.subscores) == pytest.approx(1.0)
    assert len({part.name for part in result.subscores}) == len(parts)


async def test_equal_names_are_numbered() -> None:
    result = await combine(SubScore("a", 1.0), SubScore("a", 1.0), SubScore("a-1", 1.0), SubScore("b", 1.0))
    assert result.subscores is not None
    assert [part.name for part in result.subscores] == ["a-2", "a-3", "a-1", "b"]


async def test_combine_runs_its_graders_at_once() -> None:
    met = asyncio.Barrier(3)

    class Meets(Grader):
        @classmethod
        async def compute_score(cls) -> float:
            await met.wait()
            return 1.0

    async with asyncio.timeout(10):
        assert (await combine(*(Meets.grade() for _ in range(3)))).reward == 1.0


async def test_one_that_fails_cancels_the_others_and_is_raised_when_they_have_ended() -> None:
    ended: list[str] = []
    began = asyncio.Event()

    class Slow(Grader):
        @classmethod
        async def compute_score(cls) -> float:
            began.set()
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0)
                ended.append("slow")
            return 1.0

    class Fails(Grader):
        @classmethod
        async def compute_score(cls) -> float:
            await began.wait()
            raise ValueError("broken")

    with pytest.raises(GraderError, match="broken"):
        await combine(Slow.grade(), Fails.grade())
    assert ended == ["slow"]


async def test_cancelling_combine_ends_its_graders() -> None:
    ended: list[str] = []

    class Slow(Grader):
        @classmethod
        async def compute_score(cls) -> float:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("slow")
            return 1.0

    task = asyncio.ensure_future(combine(Slow.grade(), Slow.grade()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["slow", "slow"]


async def test_combine_refuses_what_is_no_score() -> None:
    with pytest.raises(ValueError, match="at least one"):
        await combine()
    with pytest.raises(ValueError, match=r"positive weight; it got bad=-1"):
        await combine(SubScore("bad", 1.0, -1.0))
    with pytest.raises(TypeError, match=r"not float 0\.5"):
        await combine(Fixed.grade(), 0.5)  # type: ignore[arg-type]

    async def number() -> float:
        return 1.0

    with pytest.raises(TypeError, match="must give a SubScore"):
        await combine(number())  # type: ignore[arg-type]


def test_any_takes_the_best_and_all_the_worst() -> None:
    parts = [SubScore("a", 0.25), SubScore("b", 0.75)]
    best, worst = combine_any(0.5, parts), combine_all(weight=2.0, subscores=parts, name="both")
    assert (best.name, best.value, best.weight, best.children) == ("any", 0.75, 0.5, parts)
    assert (worst.name, worst.value, worst.weight) == ("both", 0.25, 2.0)
    with pytest.raises(ValueError, match="at least one"):
        combine_any(1.0, [])
    with pytest.raises(TypeError, match="SubScore"):
        combine_all(1.0, [0.5])  # type: ignore[list-item]
