"""Graders: outcomes into rewards."""

from typing import TYPE_CHECKING

from hud.plugins.lazy import lazy_names

if TYPE_CHECKING:
    from hud.graders.base import Grader as Grader
    from hud.graders.bash import BashGrader as BashGrader
    from hud.graders.combine import combine as combine
    from hud.graders.combine import combine_all as combine_all
    from hud.graders.combine import combine_any as combine_any
    from hud.graders.text import contains as contains
    from hud.graders.text import contains_all as contains_all
    from hud.graders.text import contains_any as contains_any
    from hud.graders.text import exact_match as exact_match
    from hud.graders.text import f1_score as f1_score
    from hud.graders.text import normalize as normalize
    from hud.graders.text import numbers_in as numbers_in
    from hud.graders.text import numeric_match as numeric_match
    from hud.types import EvaluationResult as EvaluationResult
    from hud.types import SubScore as SubScore
    from hud_grader_llm.grader import LLMJudgeGrader as LLMJudgeGrader

_CORE = {
    "BashGrader": "hud.graders.bash:BashGrader",
    "EvaluationResult": "hud.types:EvaluationResult",
    "Grader": "hud.graders.base:Grader",
    "SubScore": "hud.types:SubScore",
    "combine": "hud.graders.combine:combine",
    "combine_all": "hud.graders.combine:combine_all",
    "combine_any": "hud.graders.combine:combine_any",
    "contains": "hud.graders.text:contains",
    "contains_all": "hud.graders.text:contains_all",
    "contains_any": "hud.graders.text:contains_any",
    "exact_match": "hud.graders.text:exact_match",
    "f1_score": "hud.graders.text:f1_score",
    "normalize": "hud.graders.text:normalize",
    "numbers_in": "hud.graders.text:numbers_in",
    "numeric_match": "hud.graders.text:numeric_match",
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _CORE)
