"""The base of graders: a class with a name and a `compute_score`."""

from __future__ import annotations

from typing import Any, ClassVar

from hud.errors import GraderError, LimitError, RewardError, SandboxError
from hud.types.grade import SubScore, finite_score

Scored = SubScore | float | tuple[float, dict[str, Any]]
"""What `compute_score` may return: a subscore, a value within 0 to 1, or a value and its info."""

_SHOWN_CHARACTERS = 2000
_ITSELF = (GraderError, SandboxError, LimitError)


class Grader:
    """Subclass it, give it a `name`, and write `compute_score`; use it by its class: `await MyGrader.grade(...)`."""

    name: ClassVar[str] = ""
    deterministic: ClassVar[bool] = True
    """Whether the same arguments always give the same value; a judge says False."""

    @classmethod
    async def compute_score(cls, *args: Any, **parameters: Any) -> Scored:
        """Score one outcome; whatever this raises becomes a `GraderError`, never a value."""
        raise NotImplementedError(f"{cls.__name__} must define `async def compute_score(cls, ...)`")

    @classmethod
    async def grade(cls, weight: float = 1.0, name: str | None = None, **parameters: Any) -> SubScore:
        """Score with `compute_score(**parameters)` and return a `SubScore` of `weight` (negative for a penalty).

        `info["_parameters"]` keeps what it was called with.

        Raises:
            GraderError: the grader raised, or returned what is no value within 0 to 1; `retryable` as its cause says.
            SandboxError, LimitError: of the sandbox it ran in, or of a budget, as they are.
        """
        title = name or cls.name or cls.__name__
        try:
            scored = await cls.compute_score(**parameters)
            return _subscore(scored, title, weight, _shown(parameters))
        except _ITSELF:
            raise
        except RewardError as error:
            raise GraderError(f"grader {title!r}: {error}") from error
        except Exception as error:
            text = str(error) or "without a message"
            failed = GraderError(f"grader {title!r} raised {type(error).__name__}: {text}")
            failed.retryable = bool(getattr(error, "retryable", False))
            raise failed from error


def _subscore(scored: Any, name: str, weight: float, parameters: dict[str, Any]) -> SubScore:
    info: dict[str, Any] = {}
    children = None
    if isinstance(scored, SubScore):
        info, children, value = dict(scored.info or {}), scored.children, scored.value
    elif isinstance(scored, tuple) and len(scored) == 2 and isinstance(scored[1], dict):
        value, info = scored[0], dict(scored[1])
    else:
        value = scored
    info.setdefault("_parameters", parameters)
    return SubScore(
        name=name, value=finite_score(value, what="its value"), weight=weight, children=children, info=info
    )


def _shown(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters as JSON, long texts cut and what has no JSON form by its `repr`."""
    from hud.environment.payload import NotJSONError, to_json

    out: dict[str, Any] = {}
    for key, value in parameters.items():
        try:
            made = to_json(value, key)
        except (NotJSONError, TypeError, ValueError):
            made = repr(value)
        if isinstance(made, str) and len(made) > _SHOWN_CHARACTERS:
            made = f"{made[:_SHOWN_CHARACTERS]}... ({len(made):,} characters)"
        out[key] = made
    return out
