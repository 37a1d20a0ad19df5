"""What models cost. A price that is not known is unknown, never 0."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hud.settings.hudtoml import Price, project
from hud.types.messages import Usage

# Sources: the providers' price lists as of November 2026, short prompts and standard service. Models whose price
# could not be confirmed, or depends on the prompt's length, are left out: [prices] in hud.toml adds them.
_CLAUDE_SONNET = Price(3.0, 15.0, 0.3, 3.75)
_CLAUDE_OPUS = Price(5.0, 25.0, 0.5, 6.25)
_CLAUDE_OPUS_4 = Price(15.0, 75.0, 1.5, 18.75)
LIST: Mapping[str, Price] = {
    "claude-fable-5": Price(10.0, 50.0, 1.0, 12.5),
    "claude-opus-5-5": Price(4.0, 20.0, 0.2, 5.0),
    "claude-opus-5": _CLAUDE_OPUS,
    "claude-sonnet-5-5": Price(2.0, 10.0, 0.1, 2.5),
    "claude-sonnet-5": Price(2.0, 10.0, 0.2, 2.5),
    "claude-opus-4": _CLAUDE_OPUS_4,
    "claude-opus-4-1": _CLAUDE_OPUS_4,
    "claude-opus-4-5": _CLAUDE_OPUS,
    "claude-opus-4-6": _CLAUDE_OPUS,
    "claude-opus-4-7": _CLAUDE_OPUS,
    "claude-opus-4-8": _CLAUDE_OPUS,
    "claude-sonnet-4": _CLAUDE_SONNET,
    "claude-sonnet-4-5": _CLAUDE_SONNET,
    "claude-sonnet-4-6": _CLAUDE_SONNET,
    "claude-haiku-4-5": Price(1.0, 5.0, 0.1, 1.25),
    "gpt-5.5": Price(5.0, 30.0, 0.5),
    "gpt-5.4": Price(2.5, 15.0, 0.25),
    "gpt-5.4-mini": Price(0.75, 4.5, 0.075),
    "gpt-5.4-nano": Price(0.2, 1.25, 0.02),
    "gpt-5.2": Price(1.75, 14.0, 0.175),
    "gpt-5.1": Price(1.25, 10.0, 0.125),
    "gpt-5": Price(1.25, 10.0, 0.125),
    "gpt-5-mini": Price(0.25, 2.0, 0.025),
    "gpt-5-nano": Price(0.05, 0.4, 0.005),
    "gpt-4.1": Price(2.0, 8.0, 0.5),
    "gpt-4.1-mini": Price(0.4, 1.6, 0.1),
    "gpt-4.1-nano": Price(0.1, 0.4, 0.025),
    "gpt-4o": Price(2.5, 10.0, 1.25),
    "gpt-4o-mini": Price(0.15, 0.6, 0.075),
    "o3": Price(2.0, 8.0, 0.5),
    "o4-mini": Price(1.1, 4.4, 0.275),
    "gemini-2.5-pro": Price(1.25, 10.0, 0.125),
    "gemini-2.5-flash": Price(0.3, 2.5, 0.03),
    "gemini-2.5-flash-lite": Price(0.1, 0.4, 0.01),
}
_DATE = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2}|latest)$")


def known_models() -> list[str]:
    """Return the names of the models whose price is known, also those of hud.toml."""
    return sorted({*LIST, *project().prices})


def price_of(model: str, overrides: Mapping[str, Price] | None = None) -> Price | None:
    """Return a model's price, or None where it is not known.

    A provider's prefix (`anthropic/`) and a date at the end do not matter. `overrides` win; None takes [prices]
    of hud.toml.
    """
    given = project().prices if overrides is None else overrides
    bare = model.rpartition("/")[2]
    for name in (model, bare, _DATE.sub("", bare)):
        for table in (given, LIST):
            if name in table:
                return table[name]
    return None


def usage_of(
    model: str, *, prompt: int, output: int, cached: int = 0, written: int = 0, calls: int = 1
) -> Usage:
    """Return what calls used and cost; `cached` and `written` are parts of `prompt`."""
    price = price_of(model)
    cost = (
        None
        if price is None
        else cost_of(price, prompt=prompt, output=output, cached=cached, written=written)
    )
    return Usage(prompt, output, cached, cost, calls)


def cost_of(price: Price, *, prompt: int, output: int, cached: int = 0, written: int = 0) -> float:
    """Return US dollars; `cached` was read from a cache and `written` to one, both parts of `prompt`."""
    read = price.input if price.cached_input is None else price.cached_input
    write = price.input if price.cache_write is None else price.cache_write
    fresh = max(0, prompt - cached - written)
    return (fresh * price.input + cached * read + written * write + output * price.output) / 1e6
