"""What a whole job may spend, as it is written: `25usd`, `2.5m tokens`, `3600 sandbox-seconds`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from hud.errors import ConfigError
from hud.values import Value

_AMOUNT = re.compile(
    r"(?P<dollar>\$)?\s*(?P<number>\d[\d_,]*(?:\.\d+)?|\.\d+)\s*"
    r"(?P<times>[kmb](?=[\s$t]|$))?\s*(?P<unit>[a-z][a-z \-]*)?"
)
_TIMES = {"k": 1e3, "m": 1e6, "b": 1e9}
_UNITS: dict[str, tuple[str, float]] = {
    "usd": ("usd", 1.0),
    "dollars": ("usd", 1.0),
    "tokens": ("tokens", 1.0),
    "token": ("tokens", 1.0),
    "tok": ("tokens", 1.0),
    "sandbox-seconds": ("sandbox_seconds", 1.0),
    "sandbox-minutes": ("sandbox_seconds", 60.0),
    "sandbox-hours": ("sandbox_seconds", 3600.0),
}
FORMS = (
    "write 25usd, 2.5m tokens, or 3600 sandbox-seconds (also -minutes, -hours); several separated by commas"
)


@dataclass(slots=True, frozen=True, kw_only=True)
class Budget(Value):
    """Bounds over a whole job: agents, judges, simulated users, subagents, retries; None leaves one out.

    `sandbox_seconds` counts each rollout's placement from when it is asked for until it is given back.
    """

    usd: float | None = None
    tokens: int | None = None
    sandbox_seconds: float | None = None

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if all(value is None for value in given.values()):
            raise ConfigError(f"the budget bounds nothing: {FORMS}")
        for name, value in given.items():
            wrong = isinstance(value, bool) or not isinstance(value, (int, float))
            if value is not None and (wrong or not 0 < value < math.inf):
                raise ConfigError(f"budget {name}={value!r} must be a number above 0")

    @classmethod
    def of(cls, given: BudgetLike) -> Budget | None:
        """Read a budget however it is written; None and nothing at all are no budget.

        Raises:
            ConfigError: an amount cannot be read, is not above 0, or its unit is given twice.
        """
        if given is None or isinstance(given, Budget):
            return given
        words = [given] if isinstance(given, str) else list(given)
        amounts: dict[str, float] = {}
        for word in words:
            if not isinstance(word, str):
                raise ConfigError(f"budget {word!r} is no text: {FORMS}")
            # A comma between digits of a number (1,000,000) separates nothing.
            for part in re.split(r",(?!\d{3}(?!\d))|(?<!\d),", word):
                if part.strip():
                    name, amount = _amount(part.strip())
                    if name in amounts:
                        raise ConfigError(f"budget {word!r}: {name} is bounded twice")
                    amounts[name] = amount
        if not amounts:
            if any(word.strip() for word in words):
                raise ConfigError(f"budget {given!r} says nothing: {FORMS}")
            return None
        tokens = amounts.get("tokens")
        return cls(
            usd=amounts.get("usd"),
            tokens=None if tokens is None else int(tokens),
            sandbox_seconds=amounts.get("sandbox_seconds"),
        )

    def __str__(self) -> str:
        parts = [shown(field.name, getattr(self, field.name)) for field in fields(self)]
        return ", ".join(part for part in parts if part)


BudgetLike: TypeAlias = Budget | str | Iterable[str] | None


def project_budget() -> Budget | None:
    """Return the budget that hud.toml gives every job of the project; None for a job within a rollout of another."""
    from hud.eval.limits import spending
    from hud.settings.hudtoml import project

    outer = spending.get()
    if outer is not None and outer.purse is not None:
        return None  # it spends from that one's
    found = project()
    try:
        return Budget.of(found.budget)
    except ConfigError as exc:
        raise ConfigError(f"{found.path}: [limits] {exc}") from exc


def check_prices(budget: Budget, agent: Any) -> None:
    """Hold the models that `agent` is known to call to having a price, where the budget is in dollars.

    Raises:
        ConfigError: one has none; says how to add it.
    """
    if budget.usd is None:
        return
    from hud.agents.prices import price_of
    from hud.eval.purse import unpriced

    for model in models_of(agent):
        if price_of(model) is None:
            raise ConfigError(unpriced(model))


def models_of(agent: Any) -> Iterator[str]:
    """Yield the models an agent will call, as far as its configuration tells, those of its subagents too."""
    config = getattr(agent, "config", None)
    for name in ("model", "auto_respond"):
        model = getattr(config, name, None)
        if isinstance(model, str) and model not in ("", "unknown"):
            yield model
    for tool in getattr(config, "tools", None) or ():
        inner = getattr(tool, "agent", None)
        if inner is not None and inner is not agent:
            yield from models_of(inner)


def shown(unit: str, amount: float | None) -> str:
    """Return an amount as people write it, an empty text for None."""
    if amount is None:
        return ""
    if unit == "usd":
        return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.4g}"
    return f"{amount:,.0f} tokens" if unit == "tokens" else f"{amount:,.6g} sandbox-seconds"


def _amount(text: str) -> tuple[str, float]:
    found = _AMOUNT.fullmatch(text.lower())
    if found is None:
        raise ConfigError(f"budget {text!r} cannot be read: {FORMS}")
    unit = re.sub(r"[\s\-]+", "-", (found["unit"] or "").strip())
    if found["dollar"]:
        if unit not in ("", "usd", "dollars"):
            raise ConfigError(f"budget {text!r} is in dollars and in {unit}: {FORMS}")
        unit = "usd"
    if not unit:
        raise ConfigError(f"budget {text!r} has no unit: {FORMS}")
    if unit not in _UNITS:
        from difflib import get_close_matches

        close = get_close_matches(unit, _UNITS, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"budget {text!r}: unknown unit {unit!r}{meant}: {FORMS}")
    name, scale = _UNITS[unit]
    if found["times"] and name == "sandbox_seconds":
        raise ConfigError(f"budget {text!r}: write sandbox-seconds, -minutes or -hours without k, m or b")
    number = float(found["number"].replace(",", "").replace("_", ""))
    amount = number * scale * _TIMES.get(found["times"] or "", 1.0)
    if not amount > 0 or (name == "tokens" and amount < 1):
        raise ConfigError(f"budget {text!r} must be above 0")
    return name, amount
