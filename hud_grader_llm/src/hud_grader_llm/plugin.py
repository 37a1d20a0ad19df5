"""What this distribution adds to hud."""

from hud.plugins import CommandKind, GraderKind, hookimpl


@hookimpl
def hud_graders() -> list[GraderKind]:
    """Declare the graders that ask a model, and the one that reads a trace."""
    return [
        GraderKind(
            name="llm-judge",
            target="hud_grader_llm.grader:LLMJudgeGrader",
            summary="Judges an answer by criteria, each met or not",
            exports={"hud.graders": {"LLMJudgeGrader": "hud_grader_llm.grader:LLMJudgeGrader"}},
        ),
        GraderKind(
            name="reference",
            target="hud_grader_llm.reference:ReferenceGrader",
            summary="Judges whether an answer says the same as a reference",
        ),
        GraderKind(
            name="pairwise",
            target="hud_grader_llm.pairwise:PairwiseGrader",
            summary="Judges an answer against another one, in both orders",
        ),
        GraderKind(
            name="trajectory",
            target="hud_grader_llm.rules:TrajectoryGrader",
            summary="Checks rules over the steps of a trace; asks no model",
        ),
    ]


@hookimpl
def hud_commands() -> list[CommandKind]:
    """Declare `hud judge`."""
    return [
        CommandKind(
            name="judge",
            target="hud_grader_llm.command:judge",
            summary="Compare a judge with human labels",
        )
    ]
