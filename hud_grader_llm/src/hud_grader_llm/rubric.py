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
            content: Any = yaml.load(Path(path).read_text(encoding="utf-8-sig"), Loader=_loader())  # noqa: S506 - a safe one
        except OSError as error:
            raise ConfigError(f"rubric {path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"rubric {path} is no YAML: {error}") from error
        if isinstance(content, list):
            content = {"criteria": content}
        if not isinstance(content, dict):
            raise ConfigError(f"rubric {path}: expected a mapping with `criteria`, or a list of them")
        known = [f.name for f in fields(cls)]
        if unknown := sorted(map(str, set(content) - set(known))):
            raise ConfigError(f"rubric {path}: unknown keys {unknown}; known: {', '.join(known)}")
        texts = {key: content.get(key) or "" for key in ("name", "question")}
        for key, value in texts.items():
            if not isinstance(value, str):
                raise ConfigError(f"rubric {path}: {key} must be a text, not {value!r}")
        model = content.get("model")
        if model is not None and not all(
            isinstance(name, str) and name for name in (model if isinstance(model, list) else [model])
        ):
            raise ConfigError(f"rubric {path}: model must be a name or a list of names, not {model!r}")
        votes = content.get("votes", 1)
        if isinstance(votes, bool) or not isinstance(votes, int) or votes < 1:
            raise ConfigError(f"rubric {path}: votes must be a whole number of at least 1, not {votes!r}")
        try:
            given = content.get("criteria")
            criteria = read_criteria([] if given is None else given)
        except ValueError as error:
            raise ConfigError(f"rubric {path}: {error}") from error
        return cls(criteria, texts["name"], texts["question"], model, votes)


def _loader() -> Any:
    """Return YAML's safe loader, which refuses a key that occurs twice instead of forgetting the first."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            made = super().construct_mapping(node, deep=deep)
            if len(made) != len(node.value):
                keys = [key.value for key, _ in node.value]
                twice = sorted({str(key) for key in keys if keys.count(key) > 1})
                if twice:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {', '.join(twice)} occurs twice", node.start_mark
                    )
            return made

    return Loader
