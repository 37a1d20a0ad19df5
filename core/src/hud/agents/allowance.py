"""What providers say of the requests that are left, in their replies' headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(slots=True, frozen=True)
class Allowance:
    """`remaining` of `limit` requests; full again after `reset_s` seconds."""

    limit: float
    remaining: float
    reset_s: float

    @property
    def refill_per_s(self) -> float | None:
        """How fast the allowance comes back; None where that cannot be told."""
        used = self.limit - self.remaining
        return used / self.reset_s if used >= 3 and self.reset_s > 0.05 else None


# Sources: Anthropic "Rate limits: response headers"; OpenAI "Rate limits in headers"; read 2026-11.
_FORMS = (
    (
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ),
    ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def read_allowance(headers: Mapping[str, str]) -> Allowance | None:
    """Return what the headers (lower-case names) say, or None where they say nothing readable."""
    for limit, remaining, reset in _FORMS:
        try:
            return Allowance(float(headers[limit]), float(headers[remaining]), _seconds(headers[reset]))
        except (KeyError, ValueError):
            continue
    return None


def _seconds(text: str) -> float:
    """Read `6m0s`, `8.64s`, `120ms`, `12`, or a time as RFC 3339 writes it."""
    if parts := _PART.findall(text):
        return float(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if "T" in text:
        until = datetime.fromisoformat(text)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return float(text)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a refusal asks to wait (`retry-after-ms`, `retry-after` as seconds or as a date)."""
    if (ms := headers.get("retry-after-ms")) is not None:
        try:
            return max(0.0, float(ms) / 1000)
        except ValueError:
            pass
    given = headers.get("retry-after")
    if given is None:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(given)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
