"""How well a judge agrees with people: accuracy and Cohen's kappa, for each criterion and over all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from hud.errors import ConfigError, GraderError, PluginNotInstalledError
from hud.types.grade import SubScore
from hud_grader_llm.criteria import Criterion
from hud_grader_llm.grader import LLMJudgeGrader, titles
from hud_grader_llm.judging import together
from hud_grader_llm.rubric import Rubric

KNOWN = ("answer", "question", "reference", "label", "labels", "id")


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer with what people said of it: criterion -> met."""

    answer: Any
    labels: Mapping[str, bool]
    question: str = ""
    reference: Any = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """Judge against people. `kappa` is None where it is not defined: all of one kind on both sides.

    `false_met` counts what the judge calls met and people do not, `false_unmet` the other way round.
    """

    name: str
    count: int
    accuracy: float
    kappa: float | None
    met_by_people: float
    met_by_judge: float
    false_met: int
    false_unmet: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """The whole result; `undecided` are the verdicts that could not be had, with why, `unlabelled` the criteria
    that no answer is labelled for.
    """

    overall: Agreement | None
    criteria: Sequence[Agreement]
    undecided: Sequence[str]
    cost_usd: float | None
    disagreements: Sequence[str]
    unlabelled: Sequence[str] = ()


def read_labelled(path: str | Path, rubric: Rubric) -> list[Labelled]:
    """Read a JSONL file: `answer`, `labels` (criterion's name -> true or false; `label` where there is one criterion).

    Raises:
        ConfigError: a line is wrong; names file, line and value.
    """
    names = titles(rubric.criteria)
    try:
        # Not splitlines(): a line separator (U+2028) may stand within an answer.
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8: {error}") from error
    found = [
        _labelled(line, f"{path}:{n}", n, names) for n, line in enumerate(lines, start=1) if line.strip()
    ]
    if not found:
        raise ConfigError(f"{path} holds no labelled answers")
    return found


def _labelled(line: str, where: str, number: int, names: Sequence[str]) -> Labelled:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: no JSON: {error}") from None
    if not isinstance(item, dict) or "answer" not in item:
        raise ConfigError(f"{where}: expected an object with `answer` and `labels`")
    if unknown := sorted(set(item) - set(KNOWN)):
        raise ConfigError(f"{where}: unknown keys {unknown}; known: {', '.join(KNOWN)}")
    labels = item.get("labels")
    if labels is None and "label" in item and len(names) == 1:
        labels = {names[0]: item["label"]}
    if not isinstance(labels, dict) or not labels:
        raise ConfigError(f"{where}: needs `labels`, an object from criterion to true or false")
    for name, label in labels.items():
        if name not in names:
            raise ConfigError(f"{where}: no criterion is called {name!r}; there are: {', '.join(names)}")
        if label not in (True, False):
            raise ConfigError(f"{where}: label of {name!r} is {label!r}; give true or false")
    labels = {name: bool(label) for name, label in labels.items()}
    return Labelled(item["answer"], labels, str(item.get("question") or ""), item.get("reference"), number)


async def calibrate(
    rubric: Rubric,
    labelled: Sequence[Labelled],
    *,
    at_once: int = 8,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Calibration:
    """Judge every labelled answer by what it is labelled for, and compare; the options are `LLMJudgeGrader`'s.

    Raises:
        GraderError: not one answer could be judged.
        PluginNotInstalledError: scikit-learn is missing.
    """
    _metrics()  # missing is said before any call is paid for
    by_name = dict(zip(titles(rubric.criteria), rubric.criteria, strict=True))
    pairs: dict[str, list[tuple[bool, bool]]] = {name: [] for name in by_name}
    undecided: list[tuple[int, str]] = []
    disagreements: list[tuple[int, str]] = []
    costs: list[float | None] = []
    slots = anyio.CapacityLimiter(at_once)
    done = 0

    async def one(item: Labelled) -> None:
        nonlocal done
        async with slots:
            asked = [(name, criterion) for name, criterion in by_name.items() if name in item.labels]
            found = await together([verdict_on(item, criterion) for _, criterion in asked])
        for (name, _), score in zip(asked, found, strict=True):
            if isinstance(score, GraderError):
                undecided.append((item.line, f"line {item.line}: {score}"))
                continue
            costs.append((score.info or {})["usage"]["cost_usd"])
            child = (score.children or [score])[0]
            said = child.value == 1.0
            pairs[name].append((item.labels[name], said))
            if said != item.labels[name]:
                reason = (child.info or {}).get("reason", "")
                verdict = "met" if said else "unmet"
                text = f"line {item.line}: {name}: judge says {verdict}: {reason}"
                disagreements.append((item.line, text))
        done += 1
        if progress is not None:
            progress(done)

    async def verdict_on(item: Labelled, criterion: Criterion) -> SubScore | GraderError:
        try:
            return await LLMJudgeGrader.grade(
                answer=item.answer,
                criteria=[criterion],
                rubric=rubric,
                question=item.question or rubric.question,
                reference=item.reference,
                **options,
            )
        except GraderError as error:
            return error

    async with anyio.create_task_group() as group:
        for item in labelled:
            group.start_soon(one, item)
    everything = [pair for found in pairs.values() for pair in found]
    if not everything:
        raise GraderError(
            f"no answer could be judged; the first failure: {min(undecided)[1] if undecided else 'none'}"
        )
    unknown = any(cost is None for cost in costs)
    return Calibration(
        agreement("all", everything),
        [agreement(name, found) for name, found in pairs.items() if found],
        [text for _, text in sorted(undecided)],
        None if unknown else sum(cost for cost in costs if cost is not None),
        [text for _, text in sorted(disagreements)],
        [name for name in by_name if not any(name in item.labels for item in labelled)],
    )


def agreement(name: str, pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    """Compare (people, judge) pairs."""
    metrics = _metrics()
    people, judge = [p for p, _ in pairs], [j for _, j in pairs]
    kappa: float | None = None
    if len(set(people) | set(judge)) > 1:
        kappa = float(metrics.cohen_kappa_score(people, judge))
        kappa = None if math.isnan(kappa) else kappa
    return Agreement(
        name,
        len(pairs),
        float(metrics.accuracy_score(people, judge)),
        kappa,
        sum(people) / len(pairs),
        sum(judge) / len(pairs),
        sum(j and not p for p, j in pairs),
        sum(p and not j for p, j in pairs),
    )


def _metrics() -> Any:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise PluginNotInstalledError(
            "calibration needs scikit-learn: pip install 'hud-grader-llm[calibrate]'"
        ) from error
    return metrics
