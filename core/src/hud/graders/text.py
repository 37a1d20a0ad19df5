"""Scores for answers in words and numbers: 1.0 where the answer fits, 0.0 where it does not."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from hud.types.answer import Answer

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))
_NUMBER = re.compile(
    r"""(?<![\w.])(?P<sign>[-+\u2212])?      # a hyphen after a word or digit is no sign
        (?P<digits>\d{1,3}(?:[,_'\u202f\u00a0]\d{3})+(?!\d)  # 1,000,000
          |\d+)
        (?P<fraction>\.\d+)?
        (?P<exponent>[eE][-+]?\d+)?
      |(?<![\w.])(?P<sign2>[-+\u2212])?(?P<bare>\.\d+)(?P<exponent2>[eE][-+]?\d+)?""",
    re.VERBOSE,
)


def normalize(text: Any) -> str:
    """Return `text` in lower case, punctuation as spaces, without articles, spaces collapsed."""
    lowered = _text(text).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


def exact_match(answer: Any, expected: Any, *, normalize_text: bool = True) -> float:
    """Score equality, after `normalize`; with `normalize_text=False` only outer spaces and case are ignored."""
    if normalize_text:
        return float(normalize(answer) == normalize(expected))
    return float(_text(answer).strip().lower() == _text(expected).strip().lower())


def contains(answer: Any, substring: str, *, case_sensitive: bool = False, whole_word: bool = False) -> float:
    """Score whether `substring` occurs; with `whole_word` `3` does not occur in `13`, nor `cat` in `concat`."""
    text, wanted = _text(answer), _text(substring)
    if not case_sensitive:
        text, wanted = text.casefold(), wanted.casefold()
    if not whole_word:
        return float(wanted in text)
    return float(re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text) is not None)


def contains_any(
    answer: Any, substrings: Iterable[str], *, case_sensitive: bool = False, whole_word: bool = False
) -> float:
    """Score whether at least one occurs; 0.0 for none given."""
    return float(any(_each(answer, substrings, case_sensitive, whole_word)))


def contains_all(
    answer: Any, substrings: Iterable[str], *, case_sensitive: bool = False, whole_word: bool = False
) -> float:
    """Score whether every one occurs; 1.0 for none given."""
    return float(all(_each(answer, substrings, case_sensitive, whole_word)))


def numbers_in(text: Any) -> list[float]:
    """Return every finite number written in `text`, in order.

    Thousands may be separated by commas, underscores, apostrophes or narrow spaces (`1,234.5` is 1234.5; `1,2` are
    two numbers). A number within a word (`v2`, `x1`) does not count; a unit may follow (`5kg`).
    """
    return list(_numbers(_text(text)))


def numeric_match(
    answer: Any,
    expected: float | str,
    *,
    tolerance: float = 0.0,
    which: Literal["first", "last", "any"] = "first",
) -> float:
    """Score whether the first number of the answer (or the last, or any) is within `tolerance` of `expected`.

    Raises:
        ValueError: `expected` is no finite number, or the tolerance is negative.
    """
    wanted = _expected(expected)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more, not {tolerance!r}")
    found = numbers_in(answer)
    if not found:
        return 0.0
    chosen = {"first": found[:1], "last": found[-1:], "any": found}.get(which)
    if chosen is None:
        raise ValueError(f"which must be first, last or any, not {which!r}")
    return float(any(abs(number - wanted) <= tolerance for number in chosen))


def f1_score(answer: Any, reference: Any) -> float:
    """Score the overlap of words after `normalize`, each counted as often as it occurs: the harmonic mean of
    precision and recall; 0.0 where either text has no words.
    """
    given, wanted = normalize(answer).split(), normalize(reference).split()
    shared = sum((Counter(given) & Counter(wanted)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _each(answer: Any, substrings: Iterable[str], case_sensitive: bool, whole_word: bool) -> Iterator[bool]:
    if isinstance(substrings, str):
        raise TypeError(f"expected a list of texts, not the text {substrings!r}; use contains()")
    for substring in substrings:
        yield bool(contains(answer, substring, case_sensitive=case_sensitive, whole_word=whole_word))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Answer):
        return value.raw or str(value.content)
    return "" if value is None else str(value)


def _numbers(text: str) -> Iterator[float]:
    for match in _NUMBER.finditer(text):
        part = match.groupdict(default="")
        digits = re.sub(r"[^\d]", "", part["digits"])
        sign = "-" if (part["sign"] or part["sign2"]) in ("-", "\u2212") else ""
        tail = part["fraction"] + part["exponent"] + part["bare"] + part["exponent2"]
        number = float(f"{sign}{digits}{tail}")
        if math.isfinite(number):
            yield number


def _expected(value: float | str) -> float:
    if isinstance(value, str):
        found = numbers_in(value)
        if not found:
            raise ValueError(f"expected value {value!r} has no number in it")
        return found[0]
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expected value must be finite, not {value!r}")
    return number
