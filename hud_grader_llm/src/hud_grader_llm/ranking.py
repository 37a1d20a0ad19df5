"""Ranking the answers of a group by comparing them in pairs."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any

from hud.types.grade import SubScore
from hud.types.messages import Usage
from hud_grader_llm.accounts import put_on_record
from hud_grader_llm.asking import DEADLINE_S, Asker, Judge
from hud_grader_llm.judging import AT_ONCE, together
from hud_grader_llm.material import readable
from hud_grader_llm.pairwise import Comparison, compare_with, points


async def rank(
    answers: Sequence[Any],
    *,
    question: Any = "",
    criteria: Any = (),
    model: str | Sequence[str] | None = None,
    votes: int = 1,
    most_pairs: int = 60,
    seed: int = 0,
    base_url: str | None = None,
    api_key: str | None = None,
    gateway: bool = False,
    cache: bool = True,
    deadline_s: float = DEADLINE_S,
) -> list[SubScore]:
    """Return one score for each answer, in the order given: the share of its comparisons it won, a tie counting half.

    Every pair is compared in both orders, up to `most_pairs`; beyond, `seed` picks pairs so that each answer is
    compared about equally often. `info["place"]` counts from 1, equal scores sharing the better place.

    Raises:
        ValueError: fewer than two answers.
        GraderError: the judge could not decide or be asked.
    """
    if len(answers) < 2:
        raise ValueError(f"ranking needs at least two answers, not {len(answers)}")
    judge = Judge.of(
        model, base_url=base_url, api_key=api_key, gateway=gateway, cache=cache, deadline_s=deadline_s
    )
    pairs = _pairs(len(answers), most_pairs, seed)
    wanted = points(criteria)
    slots = asyncio.Semaphore(AT_ONCE)
    async with Asker(judge) as asker:
        results: list[Comparison] = await together(
            [compare_with(asker, answers[i], answers[j], question, wanted, votes, slots) for i, j in pairs]
        )
    put_on_record(_account(answers, pairs, results))
    won = [0.0] * len(answers)
    met = [0] * len(answers)
    for (i, j), result in zip(pairs, results, strict=True):
        won[i] += result.score
        won[j] += 1 - result.score
        met[i] += 1
        met[j] += 1
    scores = [won[i] / met[i] for i in range(len(answers))]
    return [
        SubScore(
            name=f"answer-{i + 1}",
            value=score,
            info={
                "place": 1 + sum(other > score for other in scores),
                "compared": met[i],
                "against": [
                    {"other": (b if a == i else a) + 1, "won": result.score if a == i else 1 - result.score}
                    for (a, b), result in zip(pairs, results, strict=True)
                    if i in (a, b)
                ],
            },
        )
        for i, score in enumerate(scores)
    ]


def _account(
    answers: Sequence[Any], pairs: Sequence[tuple[int, int]], results: Sequence[Comparison]
) -> dict[str, Any]:
    usage = Usage(cost_usd=0.0, llm_call_count=0)
    for result in results:
        usage = usage.plus(result.usage)
    kept = ("a first", "b first")
    return {
        "grader": "rank",
        "answers": [readable(answer)[0] for answer in answers],
        "comparisons": [
            {"a": i + 1, "b": j + 1, "score": result.score, **{key: result.info[key] for key in kept}}
            for (i, j), result in zip(pairs, results, strict=True)
        ],
        "usage": usage.model_dump(mode="json"),
    }


def _pairs(count: int, most: int, seed: int) -> list[tuple[int, int]]:
    """Return the pairs to compare; a ring first, so that every answer occurs and all are connected."""
    everything = list(itertools.combinations(range(count), 2))
    if len(everything) <= most:
        return everything
    dice = random.Random(seed)  # noqa: S311 - repeatable choice
    order = list(range(count))
    dice.shuffle(order)
    chosen: dict[tuple[int, int], None] = {}
    for step in range(1, count):
        for place in range(count):
            if step > 1 and len(chosen) >= most:
                return list(chosen)
            low, high = sorted((order[place], order[(place + step) % count]))
            chosen[low, high] = None
    return list(chosen)
