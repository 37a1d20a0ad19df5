"""The judge keeps the public contract of a grader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from hud.testing.grader import Graded, GraderContract
from hud.testing.llm import Ask, Turn
from hud.testing.llm.background import serving
from hud_grader_llm.grader import LLMJudgeGrader
from hud_grader_llm.testing import asked_criterion, quoted_response, verdict


def met_if_named(ask: Ask) -> Turn:
    word = asked_criterion(ask).split()[0]
    return verdict("MET" if word in quoted_response(ask) else "UNMET")


class TestJudge(GraderContract):
    grader = LLMJudgeGrader

    @pytest.fixture
    def cases(self) -> Iterator[Sequence[Graded]]:
        with serving(met_if_named) as server:
            asked = {"criteria": ["alpha is named", ("beta is named", 3.0)], "base_url": server.url}
            yield [
                Graded({"answer": "alpha and beta", **asked}, value=1.0),
                Graded({"answer": "only alpha", **asked}, value=0.25),
                Graded({"answer": "neither", **asked}, value=0.0),
                Graded({"answer": "alpha", "criteria": [], "base_url": server.url}, fails=True),
            ]
