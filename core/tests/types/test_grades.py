"""A reward exists only where a grader returned a finite real number."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hud.errors import NotGradedError, RewardError
from hud.types import Grade, SubScore, finite_score

NO_SCORES: list[Any] = [
    None, "1", "", b"1", True, False, math.nan, math.inf, -math.inf, 10**400, 1j, {}, [], [1.0], {"score": 1}, object(),
    Decimal("NaN"), np.float64("nan"), np.float32("inf"),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_SCORES, ids=[repr(v)[:20] for v in NO_SCORES])
def test_what_is_no_finite_number_is_no_score(value: Any) -> None:
    with pytest.raises(RewardError, match="score must be a finite number"):
        finite_score(value)
    with pytest.raises(RewardError):
        Grade.from_dict({"score": value})


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**300), 10**300))
def test_a_finite_number_is_its_own_score(value: float) -> None:
    assert finite_score(value) == float(value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(1), Decimal("0.25"), Fraction(1, 2)])
def test_scalars_of_other_libraries_count(value: Any) -> None:
    assert finite_score(value) == float(value)


def test_a_reply_without_a_score_is_refused() -> None:
    with pytest.raises(RewardError, match="has no score"):
        Grade.from_dict({"reward": 1.0})


def test_an_error_result_has_no_reward() -> None:
    grade = Grade.from_dict({"score": 0.0, "isError": True, "content": "the judge was away"})
    assert grade.reward is None
    assert grade.is_error
    with pytest.raises(NotGradedError, match="the judge was away"):
        grade.require()


def test_an_ungraded_rollout_is_not_zero() -> None:
    assert Grade().reward is None
    assert Grade.ungraded().reward is None


def test_a_subscore_keeps_its_bounds() -> None:
    with pytest.raises(RewardError, match="'style'"):
        SubScore("style", 1.5)
    with pytest.raises(RewardError, match="weight"):
        SubScore("style", 1.0, weight=math.nan)


def test_a_subscore_takes_its_info_under_the_older_name() -> None:
    part = SubScore(name="style", value=0.5, metadata={"why": "short"})
    assert part.info == part.metadata == {"why": "short"}
    assert part == SubScore("style", 0.5, info={"why": "short"})
    assert part.model_copy(update={"value": 1.0}).info == {"why": "short"}


def test_the_evaluation_leaves_out_the_info_of_subscores() -> None:
    reply = {"score": 1.0, "subscores": [{"name": "a", "value": 1.0, "info": {"prompt": "long"}}]}
    assert Grade.from_dict(reply).evaluation["subscores"] == [{"name": "a", "value": 1.0, "weight": 1.0}]
