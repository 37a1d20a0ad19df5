"""Typed answers: what `returns=` makes of the text an agent answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hud.environment.models import adapter_for
from hud.types.answer import Answer


class AnswerReader:
    """Makes an `Answer` of what an agent answered; pydantic's adapter is built once, on the first answer."""

    __slots__ = ("_adapter", "_returns", "_where")

    def __init__(self, returns: Any, where: str) -> None:
        self._returns = returns
        self._where = where
        self._adapter: Any = None

    def __call__(self, raw: Any) -> Answer[Any]:
        """Return `Answer(content, raw)`; what does not parse is its own content, for the template to judge."""
        text = raw if isinstance(raw, str) else _as_text(raw)
        if isinstance(self._returns, Mapping):
            return Answer(_parsed(raw), text)
        if self._returns is str:
            return Answer(text, text)
        if self._adapter is None:
            self._adapter = adapter_for(self._returns, self._where)
        for candidate in (_parsed(raw), raw):
            try:
                return Answer(self._adapter.validate_python(candidate), text)
            except ValueError:
                continue
        return Answer(raw, text)


def _parsed(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except ValueError:
        return raw


def _as_text(raw: Any) -> str:
    try:
        return json.dumps(raw, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(raw)
