"""Verdicts stay on record, also where a template yields the number alone."""

from __future__ import annotations

from typing import Any

from hud.environment import current
from hud.graders.base import Grader
from hud.types.grade import SubScore


class AccountableGrader(Grader):
    """Base of graders that ask a model: what was asked and answered goes into the info of the rollout's grade."""

    @classmethod
    async def grade(cls, weight: float = 1.0, name: str | None = None, **parameters: Any) -> SubScore:
        """Grade as any grader does, and put the verdicts on record where a session runs."""
        score = await super().grade(weight=weight, name=name, **parameters)
        put_on_record(account_of(score))
        return score


def put_on_record(account: dict[str, Any]) -> None:
    """Add what was asked and answered to the info of the rollout's grade, where a session runs."""
    session = current()
    if session is not None:
        session.record(judge=[*session.recorded.get("judge", ()), account])


def account_of(score: SubScore) -> dict[str, Any]:
    """Return what is kept of a result: value, prompt, and each verdict with model, reply, tokens and cost."""
    info = {key: value for key, value in (score.info or {}).items() if key != "_parameters"}
    account: dict[str, Any] = {"grader": score.name, "value": score.value, **info}
    if score.children:
        account["criteria"] = [
            {"name": child.name, "value": child.value, "weight": child.weight, **(child.info or {})}
            for child in score.children
        ]
    return account
