"""Simulated judges, for the tests of environments that use one; with `hud.testing.llm`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hud_grader_llm.material import MARK

if TYPE_CHECKING:
    from hud.testing.llm import Ask, Turn


def verdict(status: str, why: str = "because") -> Turn:
    """Return a judge's proper reply: `status` is MET, UNMET or CANNOT_DECIDE."""
    from hud.testing.llm import Turn

    return Turn(json.dumps({"explanation": why, "criterion_status": status}))


def asked_criterion(ask: Ask) -> str:
    """Return the first line of the criterion that a judge was asked about."""
    lines = ask.messages[-1].text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("The quoted text has ended."))
    return lines[start + 1]


def quoted_response(ask: Ask) -> str:
    """Return the response as the judge sees it, without the marks."""
    lines = next(m for m in ask.messages if m.role == "user").text.split("\n")
    start, end = lines.index("<response>"), lines.index("</response>")
    return "\n".join(line.removeprefix(MARK) for line in lines[start + 1 : end])
