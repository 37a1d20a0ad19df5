"""Rubric files: criteria and how to judge by them, in YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from hud.errors import ConfigError
from hud_grader_llm.criteria import Criterion, read_criteria


@dataclass(frozen=True, slots=True)
class Rubric:
    """Criteria with what they are asked about (`question`), by which `model` (or models), how often (`votes`)."""

    criteria: Sequence[Criterion] = ()
    name: str = ""
    question: str = ""
    model: str | Sequence[str] | None = None
    votes: int = 1

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file; a list in it is its criteria.

        Raises:
            ConfigError: it cannot be read, or has an unknown key or a wrong value; names file and key.
        """
        import yaml

        try:
            content: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"rubric {path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"rubric {path} is no YAML: {error}") from error
        if isinstance(content, list):
            content = {"criteria": content}
        if not isinstance(content, dict):
            raise ConfigError(f"rubric {path}: expected a mapping with `criteria`, or a list of them")
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(content) - set(known)):
            raise ConfigError(f"rubric {path}: unknown keys {unknown}; known: {', '.join(known)}")
        votes = content.get("votes", 1)
        if isinstance(votes, bool) or not isinstance(votes, int) or votes < 1:
            raise ConfigError(f"rubric {path}: votes must be a whole number of at least 1, not {votes!r}")
        try:
            criteria = read_criteria(content.get("criteria") or [])
        except ValueError as error:
            raise ConfigError(f"rubric {path}: {error}") from error
        return cls(
            criteria,
            str(content.get("name", "")),
            str(content.get("question", "")),
            content.get("model"),
            votes,
        )
