"""What a job that goes on has spent already, as its file tells: a budget spans all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hud.eval.purse import Amount

if TYPE_CHECKING:
    from hud.eval.resumption import Resumption


def spent_before(resumption: Resumption) -> tuple[Amount, float]:
    """Return what models took, graders' among them, and the seconds of placements; reads the file, so off the loop.

    Of a job that was killed, what was in flight counts as far as its steps tell.
    """
    from hud.store.reader import JobFile

    amount, seconds = Amount(), 0.0
    lost = {begun.run_id: begun for begun in resumption.again.values()}
    with JobFile(resumption.path) as file:
        for record in file.records(steps=False):
            for usage in _usages(record):
                amount.add(_amount(usage))
            seconds += _seconds(record)
            for attempt in record.get("attempts") or ():
                amount.add(_amount(attempt.get("usage")))
                seconds += _seconds(attempt)
        noted = (file.job().get("budget") or {}).get("spent") or {}
    for begun in lost.values():
        if not begun.was_finished:
            for attempt in begun.attempts:
                amount.add(_amount(attempt.get("usage")))
                seconds += _seconds(attempt)
    # A job that came to its end has counted itself, with calls that were cancelled and told no usage.
    amount.usd = max(amount.usd, noted.get("usd") or 0.0)
    amount.tokens = max(amount.tokens, noted.get("tokens") or 0)
    return amount, max(seconds, noted.get("sandbox_seconds") or 0.0)


def _usages(record: Mapping[str, Any]) -> Iterator[Any]:
    yield record.get("usage")
    for call in (record.get("extra") or {}).get("host_calls") or ():
        yield call.get("usage")


def _amount(usage: Any) -> Amount:
    if not usage:
        return Amount()
    tokens = (usage.get("prompt_tokens") or 0) + (usage.get("completion_tokens") or 0)
    return Amount(usage.get("cost_usd") or 0.0, tokens)


def _seconds(record: Mapping[str, Any]) -> float:
    return float(sum((record.get("phases_s") or {}).values()))
