"""A template's second yield, made the reply to `tasks.grade`."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from hud.environment.payload import FRAME_BYTES, NotJSONError, oversize, to_json
from hud.errors import RewardError
from hud.types.grade import EvaluationResult, SubScore, finite_score

_MISSING = object()


def reward_reply(value: Any, where: str, limit: int = FRAME_BYTES) -> dict[str, Any]:
    """Return `{score, done, ...}`. `where` names the template, its file and line, for errors.

    A reward is a finite number, a bare bool (1.0 or 0.0), an `EvaluationResult`, a `SubScore`, an object with a
    numeric `reward`, or a mapping with a numeric `score` (whose other keys travel too). It is not clamped.

    Raises:
        RewardError: it is anything else, or something in it has no JSON form.
    """
    if type(value) is bool:
        return {"score": float(value), "done": True}
    try:
        reply = _reply(value)
    except RewardError as error:
        raise RewardError(f"{where}: {error}") from None
    except NotJSONError as error:
        raise RewardError(f"{where}: the result cannot be sent: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:  # a __float__ or a property of the author's
        raise RewardError(f"{where}: the reward {type(value).__name__} cannot be read: {error}") from error
    too_long = oversize(reply, limit)
    if too_long is not None:
        size, path, _ = too_long
        raise RewardError(
            f"{where}: the result needs {size:,} bytes and a frame holds {limit:,}; its largest part is {path}"
        )
    return reply


def _reply(value: Any) -> dict[str, Any]:
    if isinstance(value, Coroutine):
        value.close()
        raise RewardError(
            f"the reward {getattr(value, '__name__', 'coroutine')}(...) was not awaited: write `yield await ...`"
        )
    if type(value) is float or type(value) is int:
        return {"score": finite_score(value, what="the reward"), "done": True}
    if isinstance(value, SubScore):
        return {
            "score": finite_score(value.value, what="the reward"),
            "done": True,
            "subscores": [_subscore(value, "subscores[0]")],
        }
    if isinstance(value, EvaluationResult):
        return _result(value)
    if isinstance(value, Mapping):
        if "score" not in value:
            raise RewardError(f"a mapping needs a numeric score; this one has {sorted(map(str, value))}")
        score = finite_score(value["score"], what="the score")
        rest = to_json({key: item for key, item in value.items() if key != "score"})
        return {"score": score, "done": True, **rest}
    if not isinstance(value, (str, bytes, type)) and getattr(value, "reward", _MISSING) is not _MISSING:
        return _result(value)
    return {"score": finite_score(value, what="the reward"), "done": True}


def _result(value: Any) -> dict[str, Any]:
    """Read an `EvaluationResult`, ours or another package's, or anything with a numeric `reward`."""
    reply: dict[str, Any] = {
        "score": finite_score(value.reward, what="the reward"),
        "done": getattr(value, "done", True) is not False,
    }
    content = getattr(value, "content", None)
    if content is not None:
        reply["content"] = to_json(content, "content")
    info = getattr(value, "info", None)
    if isinstance(info, Mapping) and info:
        reply["info"] = to_json(info, "info")
    if getattr(value, "isError", False) is True:
        reply["isError"] = True
    subscores = getattr(value, "subscores", None)
    if isinstance(subscores, (list, tuple)):
        reply["subscores"] = [_subscore(item, f"subscores[{i}]") for i, item in enumerate(subscores)]
    extra = getattr(value, "model_extra", None)  # what pydantic's results allow beside their fields
    if isinstance(extra, Mapping):
        reply |= {key: item for key, item in to_json(extra).items() if key not in reply}
    return reply


def _subscore(item: Any, path: str) -> dict[str, Any]:
    if not isinstance(item, SubScore):
        made = to_json(item, path)
        finite_score(made.get("value", made.get("score")) if isinstance(made, dict) else made, what=path)
        return made if isinstance(made, dict) else {"name": path, "value": made}
    out: dict[str, Any] = {
        "name": item.name,
        "value": finite_score(item.value, what=f"value of {path}"),
        "weight": finite_score(item.weight, what=f"weight of {path}"),
    }
    if item.children:
        out["children"] = [_subscore(child, f"{path}.children[{i}]") for i, child in enumerate(item.children)]
    if item.info:
        out["info"] = to_json(item.info, f"{path}.info")
    return out
