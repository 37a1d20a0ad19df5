"""The reply a judge is asked for, and how it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MET, UNMET, UNDECIDED = "MET", "UNMET", "CANNOT_DECIDE"
KEY = "criterion_status"


@dataclass(frozen=True, slots=True)
class Form:
    """A choice among named outcomes: `key` is the field that holds it."""

    key: str
    choices: tuple[str, ...]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the reply: reasons first, so that the choice follows from them."""
        return {
            "type": "object",
            "properties": {
                "explanation": {"type": "string"},
                self.key: {"type": "string", "enum": list(self.choices)},
            },
            "required": ["explanation", self.key],
            "additionalProperties": False,
        }

    @property
    def example(self) -> str:
        """What is shown to the judge."""
        return f'{{"explanation": "<why>", "{self.key}": "{"|".join(self.choices)}"}}'


CRITERION = Form(KEY, (MET, UNMET, UNDECIDED))


class UnreadableReplyError(ValueError):
    """Raised when a judge's reply holds no choice, or contradicting ones; the message says which."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge chose and why."""

    choice: str
    reason: str


def read_verdict(text: str, form: Form = CRITERION) -> Verdict:
    """Read a reply: a JSON object with the form's key, anywhere in the text, else a single choice as a word.

    Raises:
        UnreadableReplyError: there is none, or several that contradict each other.
    """
    found = [item for item in _objects(text) if form.key in item]
    verdicts = [v for item in found if (v := _of_object(item, form)) is not None]
    if verdicts:
        if len({v.choice for v in verdicts}) > 1:
            raise UnreadableReplyError(f"the reply holds contradicting values of {form.key!r}")
        return verdicts[-1]
    if found:
        raise UnreadableReplyError(
            f"{form.key!r} is {found[-1][form.key]!r}, none of {', '.join(form.choices)}"
        )
    words = _words(text, form.choices)
    if len(words) == 1:
        return Verdict(words.pop(), text.strip())
    if words:
        raise UnreadableReplyError(f"the reply names {' and '.join(sorted(words))}")
    raise UnreadableReplyError(
        f"the reply has no JSON object with {form.key!r}" if text.strip() else "the reply is empty"
    )


def _of_object(item: dict[str, Any], form: Form) -> Verdict | None:
    given = str(item[form.key]).strip().upper().replace(" ", "_").replace("NOT_MET", UNMET)
    choice = next((c for c in form.choices if c.upper() == given), None)
    if choice is None:
        return None
    reason = item.get("explanation") or item.get("reason") or item.get("reasoning") or ""
    return Verdict(choice, str(reason))


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects in a text, outermost only, in order."""
    decoder = json.JSONDecoder(strict=False)
    found: list[dict[str, Any]] = []
    place = text.find("{")
    while place != -1:
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if isinstance(value, dict):
                found.append(value)
        place = text.find("{", end)
    return found


def _words(text: str, choices: Sequence[str]) -> set[str]:
    """Return the choices named in capitals, a negated MET read as UNMET."""
    found: set[str] = set()
    spoken = re.sub(r"\b(?:NOT|not|Not|isn't|is not)\s+MET\b", UNMET, text)
    for choice in choices:
        if re.search(rf"(?<![A-Z_]){re.escape(choice)}(?![A-Z_])", spoken):
            found.add(choice)
    return found
