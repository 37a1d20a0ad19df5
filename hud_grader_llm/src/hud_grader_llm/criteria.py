"""What an answer is held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hud.types.grade import finite_score
from hud.types.messages import read

NAME_CHARS = 80


@dataclass(frozen=True, slots=True)
class Criterion:
    """One requirement, judged met or not. A negative `weight` marks a fault: met means that the answer has it."""

    requirement: str
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not self.requirement.strip():
            raise ValueError("a criterion needs a text")
        if finite_score(self.weight, what=f"weight of criterion {self.requirement!r}") == 0:
            raise ValueError(
                f"criterion {self.requirement!r} has weight 0: it would change nothing; leave it out"
            )

    @property
    def title(self) -> str:
        """Its name, else its text, cut to 80 characters."""
        text = self.name or " ".join(self.requirement.split())
        return text if len(text) <= NAME_CHARS else f"{text[: NAME_CHARS - 1]}…"


def read_criteria(given: Iterable[Any]) -> list[Criterion]:
    """Return criteria from what authors write: texts, `(text, weight)` as tuple or list, mappings, objects.

    A mapping or object has `requirement` (or `criterion`, `text`, `description`), and may have `weight` and `name`.

    Raises:
        ValueError: there are none, or one cannot be read; shows it.
    """
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"criteria must be a list, not {given!r}; give a weight as (text, weight)")
    criteria = [_one(item, place) for place, item in enumerate(given)]
    if not criteria:
        raise ValueError("no criteria: there is nothing to judge by")
    return criteria


def _one(item: Any, place: int) -> Criterion:
    if isinstance(item, Criterion):
        return item
    if isinstance(item, str):
        return Criterion(item)
    if isinstance(item, (tuple, list)):
        if len(item) == 2 and isinstance(item[0], str) and _is_number(item[1]):
            return Criterion(item[0], float(item[1]))
        if len(item) == 1 and isinstance(item[0], str):
            return Criterion(item[0])
        raise ValueError(f"criterion {place}: {item!r} is no (text, weight)")
    text = next((found for key in _TEXTS if isinstance(found := read(item, key), str)), None)
    if text is None:
        raise ValueError(f"criterion {place}: {item!r} has no text under {', '.join(_TEXTS)}")
    if isinstance(item, Mapping) and (unknown := sorted(map(str, set(item) - {*_TEXTS, "weight", "name"}))):
        raise ValueError(f"criterion {place}: unknown keys {unknown}; known: requirement, weight, name")
    weight = read(item, "weight", 1.0)
    if not _is_number(weight):
        raise ValueError(f"criterion {place}: weight {weight!r} is no number")
    name = read(item, "name", "")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"criterion {place}: name {name!r} is no text")
    return Criterion(text, float(weight), name or "")


_TEXTS = ("requirement", "criterion", "text", "description")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def weighted(values: Iterable[tuple[float, float]]) -> float:
    """Return the score of (value, weight) pairs, within 0 and 1.

    The weighted sum over the sum of positive weights, clamped; with faults alone, 1 less the share that was found.
    """
    pairs = list(values)
    positive = sum(weight for _, weight in pairs if weight > 0)
    total = sum(value * weight for value, weight in pairs)
    if positive > 0:
        return min(1.0, max(0.0, total / positive))
    return min(1.0, max(0.0, 1.0 + total / sum(-weight for _, weight in pairs)))
