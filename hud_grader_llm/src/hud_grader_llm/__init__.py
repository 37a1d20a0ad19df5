"""Graders that ask a model: criteria, comparison, equivalence, and how well they agree with people."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud_grader_llm.criteria import Criterion as Criterion
    from hud_grader_llm.grader import LLMJudgeGrader as LLMJudgeGrader
    from hud_grader_llm.pairwise import PairwiseGrader as PairwiseGrader
    from hud_grader_llm.pairwise import compare as compare
    from hud_grader_llm.ranking import rank as rank
    from hud_grader_llm.reference import ReferenceGrader as ReferenceGrader
    from hud_grader_llm.rubric import Rubric as Rubric
    from hud_grader_llm.rules import TrajectoryGrader as TrajectoryGrader

_NAMES = {
    "Criterion": "hud_grader_llm.criteria:Criterion",
    "LLMJudgeGrader": "hud_grader_llm.grader:LLMJudgeGrader",
    "PairwiseGrader": "hud_grader_llm.pairwise:PairwiseGrader",
    "ReferenceGrader": "hud_grader_llm.reference:ReferenceGrader",
    "Rubric": "hud_grader_llm.rubric:Rubric",
    "TrajectoryGrader": "hud_grader_llm.rules:TrajectoryGrader",
    "compare": "hud_grader_llm.pairwise:compare",
    "rank": "hud_grader_llm.ranking:rank",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
