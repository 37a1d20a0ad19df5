"""Rewards: what one grader said, and what a rollout got."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from hud.errors import NotGradedError, RewardError
from hud.values import Value


def finite_score(value: Any, *, what: str = "score") -> float:
    """Return `value` as a float if it is a finite real number and no bool.

    Raises:
        RewardError: it is anything else; the message shows the value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        if hasattr(value, "__float__") and not isinstance(value, (bool, str, bytes, complex)):
            return finite_score(float(value), what=what)  # numpy's and torch's scalars
        raise RewardError(f"{what} must be a finite number, not {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise RewardError(f"{what} must be a finite number, not an integer beyond a float's range") from None
    if not math.isfinite(number):
        raise RewardError(f"{what} must be a finite number, not {number}")
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '...'}"


@dataclass(slots=True, init=False)
class SubScore(Value):
    """One grader's part: `value` within 0 to 1, `weight` negative for a penalty, `children` its parts."""

    name: str
    value: float
    weight: float = 1.0
    children: list[SubScore] | None = None
    info: dict[str, Any] | None = None

    aliases: ClassVar[Mapping[str, str]] = {"metadata": "info", "score": "value"}

    def __init__(
        self,
        name: str,
        value: float,
        weight: float = 1.0,
        children: list[SubScore] | None = None,
        info: dict[str, Any] | None = None,
        *,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Make one; `metadata` is the older name of `info`."""
        self.name = name
        self.value = value
        self.weight = weight
        self.children = children
        self.info = metadata if info is None else info
        self.__post_init__()

    def __post_init__(self) -> None:
        self.value = finite_score(self.value, what=f"value of subscore {self.name!r}")
        self.weight = finite_score(self.weight, what=f"weight of subscore {self.name!r}")
        if not 0.0 <= self.value <= 1.0:
            raise RewardError(f"value of subscore {self.name!r} must lie within 0 and 1, not {self.value:g}")

    @property
    def score(self) -> float:
        """The value, under its older name."""
        return self.value

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The info, under its older name."""
        return self.info

    def to_summary(self) -> dict[str, Any]:
        """Return the tree without `info`."""
        out: dict[str, Any] = {"name": self.name, "value": self.value, "weight": self.weight}
        if self.children:
            out["children"] = [child.to_summary() for child in self.children]
        return out


@dataclass(slots=True)
class EvaluationResult(Value):
    """What a template may yield second instead of a number; `isError` marks a result that is no reward."""

    reward: float = 0.0
    done: bool = True
    content: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    isError: bool = False  # noqa: N815 - the wire's name
    subscores: list[SubScore] | None = None

    @property
    def value(self) -> float:
        """The reward, so that results and subscores read alike."""
        return self.reward

    @classmethod
    def from_float(cls, value: float) -> Self:
        """Make a result that is only a reward."""
        return cls(reward=finite_score(value, what="reward"))


@dataclass(slots=True)
class Grade(Value):
    """What a rollout got. `reward` is None until a grader returned a finite number, and stays so on error."""

    reward: float | None = None
    done: bool = True
    content: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    is_error: bool = False
    subscores: list[SubScore] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, reply: Mapping[str, Any]) -> Self:
        """Read the result of `tasks.grade`.

        Raises:
            RewardError: the score is missing or no finite number.
        """
        if "score" not in reply:
            raise RewardError(f"the reply to tasks.grade has no score: {_shown(dict(reply))}")
        score = finite_score(reply["score"])
        is_error = bool(reply.get("isError", False))
        return cls(
            reward=None if is_error else score,
            done=bool(reply.get("done", True)),
            content=reply.get("content"),
            info=dict(reply.get("info") or {}),
            is_error=is_error,
            subscores=[_read_subscore(item) for item in reply.get("subscores") or ()],
            raw=dict(reply),
        )

    @classmethod
    def ungraded(cls, why: str = "not graded") -> Self:
        """Make the grade of a rollout that no grader saw."""
        return cls(is_error=True, content=why)

    @property
    def graded(self) -> bool:
        """Whether a grader returned a finite number."""
        return self.reward is not None

    def require(self) -> float:
        """Return the reward, or raise `NotGradedError` where there is none."""
        if self.reward is None:
            raise NotGradedError(self.content or "this rollout has no reward")
        return self.reward

    @property
    def evaluation(self) -> dict[str, Any]:
        """The reply of the environment with every subscore's `info` left out."""
        out = dict(self.raw)
        if self.subscores:
            out["subscores"] = [item.to_summary() for item in self.subscores]
        return out


def _read_subscore(item: Mapping[str, Any]) -> SubScore:
    children = item.get("children")
    return SubScore(
        name=str(item.get("name", "")),
        value=item.get("value", item.get("score", 0.0)),
        weight=item.get("weight", 1.0),
        children=[_read_subscore(child) for child in children] if children else None,
        info=item.get("info", item.get("metadata")),
    )
