"""Asking for money before it is spent: what a model call reserves of a job's budget, and what it then used."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from hud.types.messages import Usage

CHARS_PER_TOKEN = 3
"""Of a prompt, on the safe side: what a provider counts is rarely more tokens than this gives."""


class Reservation:
    """A part of the budget that is held for one call: `with await run.reserve(...) as held: ...`.

    `settle` says what the call used. Left without it, an `Exception` (a refusal, a failed call) gives everything back,
    while a cancellation counts as if all had been used: what an unfinished call costs is not known.
    """

    __slots__ = ("output_tokens",)

    def __init__(self, output_tokens: int | None = None) -> None:
        self.output_tokens: int | None = output_tokens
        """What the call may write at most, where the budget holds less than was asked for; None bounds nothing."""

    def settle(self, usage: Usage | None) -> None:
        """Take note of what the call used, and give back the rest; None is a call that cost nothing."""

    def forfeit(self) -> None:
        """Count all that was held as used."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self.settle(None)
        else:
            self.forfeit()


FREE = Reservation()
"""Where no budget is to be held."""
