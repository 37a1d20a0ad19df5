"""Scores for words and numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hud.environment import Answer
from hud.graders import (
    contains,
    contains_all,
    contains_any,
    exact_match,
    f1_score,
    normalize,
    numeric_match,
)
from hud.graders.text import numbers_in


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Quick, brown FOX!", "quick brown fox"),
        ("a-b_c", "b c"),
        ("theatre another", "theatre another"),
        ("", ""),
        (None, ""),
        (42, "42"),
        (Answer(7, "Seven."), "seven"),
    ],
)
def test_normalize(text: Any, normal: str) -> None:
    assert normalize(text) == normal


@given(st.text())
def test_normalizing_twice_changes_nothing_more_than_articles(text: str) -> None:
    assert normalize(normalize(normalize(text))) == normalize(normalize(text))


def test_exact_match() -> None:
    assert exact_match("The answer!", "answer") == 1.0
    assert exact_match("The answer!", "answer", normalize_text=False) == 0.0
    assert exact_match("  Paris ", "paris", normalize_text=False) == 1.0


def test_contains() -> None:
    assert contains("It is 13.", "3") == 1.0
    assert contains("It is 13.", "3", whole_word=True) == 0.0
    assert contains("It is 3.", "3", whole_word=True) == 1.0
    assert contains("C++ it is", "c++", whole_word=True) == 1.0
    assert contains("Straße", "STRASSE") == 1.0
    assert contains("Abc", "abc", case_sensitive=True) == 0.0
    assert contains(None, "x") == 0.0


def test_contains_any_and_all_of_nothing() -> None:
    assert contains_any("x", []) == 0.0
    assert contains_all("x", []) == 1.0
    assert contains_any("a b", ["c", "b"]) == 1.0
    assert contains_all("a b", ["c", "b"]) == 0.0
    assert contains_all("cats", ["cat"], whole_word=True) == 0.0
    with pytest.raises(TypeError, match="use contains"):
        contains_any("abc", "abc")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,000", [1000]),
        ("1,234,567.89 euros", [1234567.89]),
        ("1'000'000 or 1_000", [1000000, 1000]),
        ("1,2 and 1,2345", [1, 2, 1, 2345]),
        ("-5.5e3, +2, \u22127", [-5500, 2, -7]),
        ("5-3", [5, 3]),
        (".5 and 0.25", [0.5, 0.25]),
        ("v2 x1 4kg", [4]),
        ("about 7.", [7]),
        ("1e999", []),
        ("none", []),
        ("", []),
    ],
)
def test_numbers_in_a_text(text: str, numbers: list[float]) -> None:
    assert numbers_in(text) == numbers


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators_do_not_change_a_number(number: int) -> None:
    assert numbers_in(f"it is {number:,}!") == [number]
    assert numbers_in(f"it is {number:_}!") == [number]


@given(st.text())
def test_numbers_found_are_finite(text: str) -> None:
    assert all(math.isfinite(number) for number in numbers_in(text))


def test_numeric_match() -> None:
    assert numeric_match("about 1,000 apples", 1000) == 1.0
    assert numeric_match("3 of 10", 10) == 0.0
    assert numeric_match("3 of 10", 10, which="last") == 1.0
    assert numeric_match("1 or 2 or 3", 2, which="any") == 1.0
    assert numeric_match("3.14", 3.1416, tolerance=0.01) == 1.0
    assert numeric_match("no number", 0) == 0.0
    assert numeric_match("1000", "1,000") == 1.0


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        (float("nan"), {}),
        (float("inf"), {}),
        ("none", {}),
        (1, {"tolerance": -1}),
        (1, {"tolerance": float("nan")}),
    ],
)
def test_what_cannot_be_compared_with_is_an_error_not_a_score(expected: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|tolerance"):
        numeric_match("1", expected, **options)


def test_f1_score() -> None:
    assert f1_score("the cat sat", "cat sat") == 1.0
    assert f1_score("cat cat", "cat") == pytest.approx(2 / 3)
    assert f1_score("dog", "cat") == 0.0
    assert f1_score("", "") == 0.0


@given(st.text(), st.text())
def test_every_score_lies_within_0_and_1(answer: str, expected: str) -> None:
    scores = [exact_match(answer, expected), contains(answer, expected), f1_score(answer, expected)]
    assert all(0.0 <= score <= 1.0 for score in scores)
