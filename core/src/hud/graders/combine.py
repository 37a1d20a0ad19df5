"""Several graders' scores made one."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from hud.types.grade import EvaluationResult, SubScore


async def combine(*items: SubScore | Awaitable[SubScore]) -> EvaluationResult:
    """Await `items` together and return their weighted sum.

    Positive weights are scaled to add up to 1; negative ones stay as they are, penalties. The reward is not clamped.
    Names that occur twice get `-1`, `-2`, ... The first that fails cancels the others and is raised once they have
    ended.

    Raises:
        ValueError: there are no items, or none has a positive weight.
        TypeError: an item is, or returns, no `SubScore`.
    """
    if not items:
        raise ValueError("combine() needs at least one grader")
    scores = await _all(items)
    positive = sum(score.weight for score in scores if score.weight > 0)
    if positive <= 0:
        raise ValueError(
            "combine() needs a positive weight; it got "
            + ", ".join(f"{score.name}={score.weight:g}" for score in scores)
        )
    parts = [
        replace(score, name=name, weight=score.weight / positive if score.weight > 0 else score.weight)
        for score, name in zip(scores, _distinct(scores), strict=True)
    ]
    return EvaluationResult(reward=sum(part.value * part.weight for part in parts), subscores=parts)


def combine_any(weight: float, subscores: Iterable[SubScore], *, name: str = "any") -> SubScore:
    """Return the best of `subscores` as one of `weight`, with all of them as its children."""
    return _chosen(weight, subscores, name, best=True)


def combine_all(weight: float, subscores: Iterable[SubScore], *, name: str = "all") -> SubScore:
    """Return the worst of `subscores` as one of `weight`, with all of them as its children."""
    return _chosen(weight, subscores, name, best=False)


def _chosen(weight: float, subscores: Iterable[SubScore], name: str, *, best: bool) -> SubScore:
    children = [_checked(item) for item in subscores]
    if not children:
        raise ValueError(f"combine_{name}() needs at least one subscore")
    value = (max if best else min)(child.value for child in children)
    named = [replace(child, name=n) for child, n in zip(children, _distinct(children), strict=True)]
    return SubScore(name=name, value=value, weight=weight, children=named)


async def _all(items: Sequence[Any]) -> list[SubScore]:
    tasks: list[asyncio.Future[Any]] = []
    try:
        for item in items:
            if isinstance(item, SubScore):
                continue
            if not inspect.isawaitable(item):
                raise TypeError(
                    f"combine() takes SubScores and awaitables of them, not {type(item).__name__} {item!r}"
                )
        tasks = [asyncio.ensure_future(item) for item in items if not isinstance(item, SubScore)]
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = next((t for t in tasks if t.done() and not t.cancelled() and t.exception()), None)
            cancelled = next((t for t in tasks if t.done() and t.cancelled()), None)
            first = failed or cancelled
            if first is not None:
                await first
    finally:
        await _end(tasks, items)
    results = iter(tasks)
    return [item if isinstance(item, SubScore) else _checked(next(results).result()) for item in items]


async def _end(tasks: list[asyncio.Future[Any]], items: Sequence[Any]) -> None:
    """Cancel what still runs and wait for it; close coroutines that were never started."""
    if not tasks:
        for item in items:
            if inspect.iscoroutine(item):
                item.close()
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as seen: the first failure is the one that is raised


def _checked(item: Any) -> SubScore:
    if not isinstance(item, SubScore):
        raise TypeError(f"a grader must give a SubScore, not {type(item).__name__} {item!r}")
    return item


def _distinct(scores: Sequence[SubScore]) -> list[str]:
    """Return the names, those that occur twice numbered from 1."""
    counts = Counter(score.name for score in scores)
    taken = {name for name, count in counts.items() if count == 1}
    numbers: Counter[str] = Counter()
    names: list[str] = []
    for score in scores:
        name = score.name
        if counts[name] > 1:
            while True:
                numbers[score.name] += 1
                name = f"{score.name}-{numbers[score.name]}"
                if name not in taken:
                    break
            taken.add(name)
        names.append(name)
    return names
