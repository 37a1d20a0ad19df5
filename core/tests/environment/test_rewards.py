"""Second yields: what is a score, and what never becomes one (G5)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from hud.environment.rewards import reward_reply
from hud.errors import RewardError
from hud.graders import EvaluationResult, SubScore

WHERE = "template 't' (env.py:7)"
FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**300), 10**300)


@settings(deadline=None)
@given(FINITE)
def test_a_finite_number_is_the_score(value: float) -> None:
    for shape in (value, {"score": value}, SimpleNamespace(reward=value), EvaluationResult(reward=value)):
        reply = reward_reply(shape, WHERE)
        assert reply["score"] == float(value)
        assert type(reply["score"]) is float
        assert math.isfinite(reply["score"])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["score", "reward", "info", "x"]), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(ANYTHING)
def test_anything_is_either_a_finite_score_that_is_json_or_a_typed_error(value: Any) -> None:
    try:
        reply = reward_reply(value, WHERE)
    except RewardError:
        return
    assert math.isfinite(reply["score"])
    json.dumps(reply, allow_nan=False)
    assert isinstance(value, (bool, int, float, dict))


@pytest.mark.parametrize(("value", "score"), [(True, 1.0), (False, 0.0)])
def test_a_bare_bool_is_a_number(value: bool, score: float) -> None:
    assert reward_reply(value, WHERE) == {"score": score, "done": True}


@pytest.mark.parametrize("value", [Decimal("0.5"), Fraction(1, 2), 0.5])
def test_other_real_numbers_are_scores(value: Any) -> None:
    assert reward_reply(value, WHERE)["score"] == 0.5


def test_numpy_scalars_are_scores() -> None:
    numpy = pytest.importorskip("numpy")
    assert reward_reply(numpy.float32(0.5), WHERE)["score"] == 0.5
    assert reward_reply(numpy.bool_(True), WHERE)["score"] == 1.0
    with pytest.raises(RewardError):
        reward_reply(numpy.array([1.0, 2.0]), WHERE)


@pytest.mark.parametrize(
    "value",
    [
        {"score": True},
        {"score": "1.0"},
        {"reward": 1.0},
        SimpleNamespace(reward="high"),
        SimpleNamespace(reward=None),
        EvaluationResult(reward=float("nan")),
        float,
        EvaluationResult,
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_carries_no_number_is_refused(value: Any) -> None:
    with pytest.raises(RewardError, match=r"template 't' \(env\.py:7\)"):
        reward_reply(value, WHERE)


def test_a_result_travels_whole() -> None:
    result = EvaluationResult(
        reward=0.75,
        done=False,
        content="well done",
        info={"tests": 3},
        subscores=[
            SubScore("a", 1.0, 0.5, children=[SubScore("b", 1.0)], info={"x": 1}),
            SubScore("c", 0.5, 0.5),
        ],
    )
    assert reward_reply(result, WHERE) == {
        "score": 0.75,
        "done": False,
        "content": "well done",
        "info": {"tests": 3},
        "subscores": [
            {
                "name": "a",
                "value": 1.0,
                "weight": 0.5,
                "children": [{"name": "b", "value": 1.0, "weight": 1.0}],
                "info": {"x": 1},
            },
            {"name": "c", "value": 0.5, "weight": 0.5},
        ],
    }


def test_a_subscore_is_a_reward_with_itself_as_part() -> None:
    reply = reward_reply(SubScore("judge", 0.5), WHERE)
    assert reply["score"] == 0.5
    assert reply["subscores"] == [{"name": "judge", "value": 0.5, "weight": 1.0}]


def test_a_result_that_is_an_error_says_so() -> None:
    assert (
        reward_reply(EvaluationResult(reward=0.0, isError=True, content="broken"), WHERE)["isError"] is True
    )


class ForeignResult(BaseModel):
    """The shape of another package's result, with fields of its own."""

    model_config = ConfigDict(extra="allow")
    reward: float
    info: dict[str, Any] = {}


def test_another_packages_result_passes_with_its_extra_fields() -> None:
    reply = reward_reply(ForeignResult(reward=1, info={"a": 1}, steps=4), WHERE)  # type: ignore[call-arg]
    assert reply == {"score": 1.0, "done": True, "info": {"a": 1}, "steps": 4}


def test_the_score_is_not_clamped() -> None:
    assert reward_reply(-3, WHERE)["score"] == -3.0
    assert reward_reply(17.5, WHERE)["score"] == 17.5


@dataclass
class Raising:
    @property
    def reward(self) -> float:
        raise AttributeError("not computed yet")


def test_a_reward_that_cannot_be_read_is_typed() -> None:
    with pytest.raises(RewardError):
        reward_reply(Raising(), WHERE)


def test_keys_of_a_mapping_travel_and_nan_among_them_is_named() -> None:
    assert reward_reply({"score": 1, "note": "x", "n": (1, 2)}, WHERE) == {
        "score": 1.0,
        "done": True,
        "note": "x",
        "n": [1, 2],
    }
    with pytest.raises(RewardError, match=r"info\.a\[0\]\.b: nan is not JSON"):
        reward_reply({"score": 1, "info": {"a": [{"b": float("nan")}]}}, WHERE)


def test_a_result_longer_than_a_frame_names_its_largest_part() -> None:
    with pytest.raises(RewardError, match=r"its largest part is info\.log"):
        reward_reply({"score": 1, "info": {"log": "x" * 5000}}, WHERE, limit=4096)
