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
    """Read a reply: a JSON object with the form's key, anywhere in the text, else a last line that is a choice.

    What stands outside the object must name no other choice: it may be the judge's own words, and the object what
    the response wrote.

    Raises:
        UnreadableReplyError: there is none, or several that contradict each other.
    """
    text = _after_thoughts(text)
    objects, rest = _objects(text)
    found = [item for item in objects if form.key in item]
    verdicts = [v for item in found if (v := _of_object(item, form)) is not None]
    named = _words(rest, form.choices)
    if verdicts:
        choices = {v.choice for v in verdicts}
        if len(choices) > 1:
            raise UnreadableReplyError(f"the reply holds contradicting values of {form.key!r}")
        if others := named - choices:
            raise UnreadableReplyError(
                f"{form.key!r} is {choices.pop()}, and the reply names {', '.join(others)} too"
            )
        return verdicts[-1]
    if found:
        raise UnreadableReplyError(
            f"{form.key!r} is {found[-1][form.key]!r}, none of {', '.join(form.choices)}"
        )
    if len(named) == 1 and _last_line_is(choice := named.pop(), text, form):
        return Verdict(choice, text.strip())
    if len(named) > 1:
        raise UnreadableReplyError(f"the reply names {' and '.join(sorted(named))}")
    raise UnreadableReplyError(
        f"the reply has no JSON object with {form.key!r}" if text.strip() else "the reply is empty"
    )


def _after_thoughts(text: str) -> str:
    """Leave out what a model thought aloud, which weighs every choice: some servers send it with the reply."""
    head, closed, rest = text.partition("</think>")
    return rest if closed and not head.lstrip().startswith("{") else text


def _of_object(item: dict[str, Any], form: Form) -> Verdict | None:
    given = str(item[form.key]).strip().upper().replace(" ", "_").replace("NOT_MET", UNMET)
    choice = next((c for c in form.choices if c.upper() == given), None)
    if choice is None:
        return None
    reason = item.get("explanation") or item.get("reason") or item.get("reasoning") or ""
    return Verdict(choice, str(reason))


def _objects(text: str) -> tuple[list[dict[str, Any]], str]:
    """Return the JSON objects in a text, outermost only, in order, and the text around them."""
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_without_repeats)
    found: list[dict[str, Any]] = []
    around: list[str] = []
    start, place = 0, text.find("{")
    while place != -1:
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            found.append(value)
            around.append(text[start:place])
            start = end
        place = text.find("{", end)
    return found, "\n".join([*around, text[start:]])


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key occurs twice")
    return made


def _words(text: str, choices: Sequence[str]) -> set[str]:
    """Return the choices named in capitals, a negated MET read as UNMET."""
    spoken = _NOT_MET.sub(UNMET, text)
    return {choice for choice in choices if re.search(rf"(?<![A-Z_]){re.escape(choice)}(?![A-Z_])", spoken)}


_NOT_MET = re.compile(r"\b(?:NOT|not|Not|isn't|is not)\s+MET\b")


def _last_line_is(choice: str, text: str, form: Form) -> bool:
    """Whether the last line says a choice and nothing else: within a sentence it may be denied, or quoted."""
    last = _NOT_MET.sub(UNMET, text.strip().rpartition("\n")[2])
    subject = rf"(?:the )?(?:final )?(?:criterion|requirement|fault|verdict|status|answer|result|{form.key})"
    return re.fullmatch(rf"\W*(?:(?i:{subject})\W*(?i:is\b)?)?\W*{re.escape(choice)}\W*", last) is not None
